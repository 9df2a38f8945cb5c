"""consistency: two passes over the same sentences, with other dropout and other prefixes, are to predict alike."""

from dataclasses import dataclass, field

from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterionConfig

from gift_fairseq.criterions.base import GiftCriterion, MixFlags
from gift_fairseq.objectives.consistency import ConsistencyTargets
from gift_fairseq.prefixes.second_pass import SecondPass, SecondPassFlags


@dataclass
class ConsistencyConfig(SecondPassFlags, LabelSmoothedCrossEntropyCriterionConfig):
    share_encoder: bool = field(
        default=False,
        metadata={"help": "both passes of the decoder follow one pass of the encoder, with one dropout; default: off"},
    )


@register_criterion("gift_consistency", dataclass=ConsistencyConfig)
class ConsistencyCriterion(GiftCriterion):
    """``1/2 sum (l(x) + l(x')) + w/2 sum (KL(p || q) + KL(q || p))``: R-Drop (Liang et al. 2021, R-Drop: Regularized
    Dropout for Neural Networks), in the updates of ``--consistency-ratio``; ``sum l(x)`` in the others.

    p are the predictions after ``x'``, q those after the gold inputs x, each with dropout of its own; w is
    ``--consistency-weight``, and the gradient goes through both. In R-Drop ``x' = x``; with ``--own-ratio`` the second
    pass reads some of the model's own tokens, so that they do not change what it predicts. The rows of both passes are
    below each other in one batch.

    Where we differ: theirs is twice this loss with ``w = alpha / 2``.
    """

    def __init__(self, cfg, task):
        super().__init__(cfg, task)
        source = SecondPass(cfg, self.symbols)
        targets = ConsistencyTargets(cfg, self.symbols, lambda: source.weight.ratio(self.update_num()))
        self.train_on(source, targets, MixFlags(mle_weight=0.5), encodes_twice=not cfg.share_encoder)
