"""distillation: gold pairs and the model's own translations, as training text."""

from functools import cached_property
from pathlib import Path

from fairseq.criterions import register_criterion
from fairseq.utils import split_paths

from gift_fairseq.criterions.base import GiftCriterion
from gift_fairseq.errors import UserError
from gift_fairseq.objectives.margin import MarginConfig, MarginTargets
from gift_fairseq.own_translations.origin import Origin


@register_criterion("gift_distillation", dataclass=MarginConfig)
class DistillationCriterion(GiftCriterion):
    """Teacher forcing on gold translations by cross-entropy, on the model's own hypotheses by a margin loss.

    The hypotheses are in the data: ``gift candidates`` puts them there (Kim and Rush 2016, Sequence-Level Knowledge
    Distillation, section 3.3; here the teacher is the checkpoint that is fine-tuned). :class:`MarginTargets` is their
    loss, where Kim and Rush have cross-entropy; with ``--margin 0`` it is that too, and the criterion ``gift_standard``
    under a name that says in logs and reports what was trained on.
    """

    def __init__(self, cfg, task):
        super().__init__(cfg, task)
        self.objective = MarginTargets(cfg, self.symbols)
        self.data = task.cfg.data

    @cached_property
    def gold_pairs(self) -> int:
        """So many pairs of the training set, the first, are gold; asked for in training alone."""
        margin = f"--margin is {self.objective.margin:g}"
        if len(split_paths(self.data)) > 1:
            raise UserError(f"{margin}, but the data is in several folders, {self.data}: give one")
        origin = Origin.of(Path(self.data))
        if origin is None:
            raise UserError(
                f"{margin}, but the data folder {self.data} has no own translations: make one that "
                "has with gift candidates, or train by cross-entropy alone with --margin 0"
            )
        return origin.gold_pairs

    def own(self, sample):
        """Those behind the gold pairs of the training set."""
        return None if self.objective.margin == 0 else sample["id"].ge(self.gold_pairs)
