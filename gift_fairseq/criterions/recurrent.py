"""recurrent: the decoder's own outputs replace its inputs, in a second pass."""

from dataclasses import dataclass, field

import torch
from fairseq.criterions import register_criterion
from torch import Tensor

from gift_fairseq import prefixes, rollout
from gift_fairseq.criterions.base import GiftCriterion, RolloutConfig
from gift_fairseq.options import check_at_least, check_ratio


@dataclass
class RecurrentConfig(RolloutConfig):
    gold_ratio: float = field(
        default=0.0,
        metadata={
            "help": "probability that a decoder input stays gold, a ratio from 0 (all are replaced) to 1 (off); "
            "default: 0"
        },
    )
    passes: int = field(
        default=1,
        metadata={
            "help": "number of passes that choose tokens before the one that is trained on, 1 or more: N passes fix "
            "the first N positions of the free-running output; default: 1"
        },
    )


@register_criterion("gift_recurrent", dataclass=RecurrentConfig)
class RecurrentCriterion(GiftCriterion):
    """``sum l(x')``: scheduled sampling for Transformers (Mihaylova & Martins 2019) with all inputs replaced.

    Pass 1 reads the gold inputs ``x``; its choice at position t becomes the input at position t + 1. With
    ``--passes N`` that is done N times, each pass reading the inputs of the one before (parallel scheduled sampling,
    Duckworth et al. 2019). The last pass reads the replaced inputs ``x'`` and is the only one with a gradient.

    Where we differ: tokens are the argmax (Mihaylova & Martins also sample, or mix embeddings), chosen without dropout
    in the decoder; there is no schedule of the gold ratio; the inputs that stay gold are drawn once for all passes.
    """

    def __init__(
        self,
        task,
        sentence_avg,
        label_smoothing,
        ignore_prefix_size=0,
        report_accuracy=False,
        gold_ratio=0.0,
        passes=1,
        rollout_dtype="model",
    ):
        super().__init__(task, sentence_avg, label_smoothing, ignore_prefix_size, report_accuracy)
        self.gold_ratio = check_ratio("--gold-ratio", gold_ratio)
        self.passes = check_at_least("--passes", passes, 1)
        self.rollout_dtype = rollout.dtype_named(rollout_dtype)

    def reads_gold(self) -> bool:
        return self.gold_ratio == 1

    def decoder_inputs(self, decoder, gold_inputs, encoder_out, extra, target, log) -> Tensor:
        mask = prefixes.replaceable(gold_inputs, self.padding_idx, self.ignore_prefix_size)
        if self.gold_ratio > 0:
            mask &= torch.rand(mask.shape, device=mask.device) >= self.gold_ratio
        inputs = gold_inputs
        for number in range(self.passes):
            predictions = rollout.teacher_forced(
                decoder,
                inputs,
                encoder_out,
                self.forbidden,
                look=(lambda scores: self.log_gold_nll(scores, target, log)) if number == 0 else None,
                dtype=self.rollout_dtype,
                **extra,
            )
            inputs = self.replace_inputs(gold_inputs, predictions, mask, log)
        return inputs
