"""generative: a share of the updates trains on free-running generation."""

from dataclasses import dataclass
from functools import partial

from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterionConfig

from gift_fairseq.criterions.base import GiftCriterion, MixFlags
from gift_fairseq.errors import UserError
from gift_fairseq.objectives.oracle import TARGETS, TargetFlags, token_targets
from gift_fairseq.objectives.sentence_costs import CostFlags, SentenceCost
from gift_fairseq.prefixes.best import BestFlags, BestPrefixes, check_unused
from gift_fairseq.prefixes.free_running import GoldLengthPrefixes, GraphFlags, OwnLengthPrefixes, ShareFlags
from gift_fairseq.prefixes.source import SamplingFlags, generation_of


@dataclass
class GenerativeConfig(
    ShareFlags,
    GraphFlags,
    SamplingFlags,
    TargetFlags,
    BestFlags,
    CostFlags,
    MixFlags,
    LabelSmoothedCrossEntropyCriterionConfig,
):
    pass


@register_criterion("gift_generative", dataclass=GenerativeConfig)
class GenerativeCriterion(GiftCriterion):
    """``sum l(z)`` on the chosen updates, ``sum l(x)`` on the others; z is what the decoder generates itself.

    Generation is greedy unless ``--choose`` says otherwise, cached, and without gradient or decoder dropout; one
    parallel pass over the generated inputs then gives loss and gradient. The argmax passes no gradient, so without
    dropout this equals back-propagation through the step-by-step generation, to rounding.

    With gold targets z has the gold length. With ``--targets oracle`` the length is the model's own: the loss is taken
    up to and including the step where the row ends, or is cut at ``--length-cap``. With ``--targets best`` z and the
    targets are a whole hypothesis, chosen among several; see :class:`BestPrefixes`.
    """

    def __init__(self, cfg, task):
        super().__init__(cfg, task)
        generation = generation_of(cfg)
        targets = token_targets(cfg, self.symbols, (*TARGETS, "best"))
        if cfg.rollout_cuda_graphs and (cfg.choose == "sample" or cfg.targets != "gold"):
            raise UserError(
                "--rollout-cuda-graphs is given, but graphs repeat an argmax to a known length: leave out --choose "
                "sample and --targets"
            )
        if cfg.targets == "best":
            cost = partial(SentenceCost(cfg.risk_cost, task.target_dictionary).of, ignored=self.symbols.ignored)
            source = BestPrefixes(cfg, self.symbols, task.target_dictionary, cost)
        else:
            check_unused(cfg, BestFlags)
            check_unused(cfg, CostFlags)
        if cfg.targets == "oracle":
            source = OwnLengthPrefixes(cfg, self.symbols, generation)
        elif cfg.targets == "gold":
            source = GoldLengthPrefixes(cfg, self.symbols, generation, cfg.rollout_cuda_graphs)
        self.train_on(source, targets, cfg)
