"""recurrent: the decoder's own outputs replace its inputs, in a second pass."""

from dataclasses import dataclass, field

import torch
from fairseq.criterions import register_criterion
from torch import Tensor

from gift_fairseq import prefixes, rollout
from gift_fairseq.criterions.own_prefixes import Reading
from gift_fairseq.criterions.token_targets import TokenTargetsConfig, TokenTargetsCriterion
from gift_fairseq.options import UserError, check_at_least, check_choice, check_ratio
from gift_fairseq.schedules import parse_schedule

MIXED_BY = ("token", "sentence")


@dataclass
class RecurrentConfig(TokenTargetsConfig):
    gold_ratio: str = field(
        default="0",
        metadata={
            "help": "probability that a decoder input stays gold, a ratio from 0 (all are replaced) to 1 (off); or a "
            "schedule over the updates: KIND:START:END:N, with KIND linear, exponential or sigmoid; default: 0"
        },
    )
    gold_ratio_steps: str = field(
        default="1",
        metadata={
            "help": "what --gold-ratio is multiplied by at each decoding step: a schedule over the steps, "
            "exponential:1:0.1:30 say, so that later inputs are replaced more often; default: 1, at all steps alike"
        },
    )
    gold_mixed_by: str = field(
        default="token",
        metadata={
            "help": "what --gold-ratio is drawn for: token (each input by itself) or sentence (all of its inputs "
            "together); default: token"
        },
    )
    confidence: float = field(
        default=0.0,
        metadata={
            "help": "an input is replaced only where the model gave the gold token a higher probability than this, "
            "from 0 (everywhere) to below 1; default: 0"
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
class RecurrentCriterion(TokenTargetsCriterion):
    """``sum l(x')``: scheduled sampling for Transformers (Mihaylova & Martins 2019) with all inputs replaced.

    Pass 1 reads the gold inputs ``x``; its choice at position t becomes the input at position t + 1. With
    ``--passes N`` that is done N times, each pass reading the inputs of the one before (parallel scheduled sampling,
    Duckworth et al. 2019). The last pass reads the replaced inputs ``x'`` and is the only one with a gradient.

    An input stays gold with probability ``g(u) f(t)``: g is ``--gold-ratio`` over updates u (Bengio et al. 2015), f
    ``--gold-ratio-steps`` over decoding steps t (Liu et al. 2021b, Scheduled Sampling Based on Decoding Steps for
    Neural Machine Translation; they combine the two in other ways too). ``--confidence c`` besides keeps it gold where
    pass 1 gave the gold token a probability of at most c (Liu et al. 2021a, Confidence-Aware Scheduled Sampling for
    Neural Machine Translation, without their random tokens above a second threshold). With c of a half or
    more and one pass, the argmax *is* the gold token wherever one is replaced, as they note: draw it.

    Where we differ from Mihaylova & Martins: tokens are chosen without dropout in the decoder, embeddings are not
    mixed; the inputs that stay gold are drawn once for all passes.
    """

    def __init__(self, cfg, task):
        super().__init__(cfg, task)
        self.gold_ratio = parse_schedule("--gold-ratio", cfg.gold_ratio)
        self.gold_ratio_steps = parse_schedule("--gold-ratio-steps", cfg.gold_ratio_steps)
        self.gold_mixed_by = check_choice("--gold-mixed-by", cfg.gold_mixed_by, MIXED_BY)
        self.confidence = check_ratio("--confidence", cfg.confidence)
        self.passes = check_at_least("--passes", cfg.passes, 1)
        if self.confidence == 1:
            raise UserError("--confidence is 1, which no probability is above: use --criterion gift_standard")
        if self.confidence >= 0.5 and not self.samples and self.passes == 1:
            raise UserError(
                f"--confidence is {self.confidence}, but a gold token above a half is the argmax, so nothing would be "
                "replaced by another token: add --choose sample, or take a --confidence below 0.5"
            )
        if self.gold_ratio.is_always(0):
            if not self.gold_ratio_steps.is_always(1):
                raise UserError("--gold-ratio-steps multiplies --gold-ratio, which is 0: give that a value above 0")
            if self.gold_mixed_by != "token":
                raise UserError("--gold-mixed-by is sentence, but --gold-ratio is 0, so nothing is mixed")
        if self.gold_ratio_steps.is_always(0):
            raise UserError("--gold-ratio-steps is 0, which leaves nothing of --gold-ratio: give that as 0 instead")
        if self.gold_mixed_by == "sentence" and not self.gold_ratio_steps.is_always(1):
            raise UserError("--gold-ratio-steps differs between the inputs that --gold-mixed-by sentence keeps alike")

    def reads_gold(self) -> bool:
        return self.gold_ratio.ratio(self.update_num()) == 1 and self.gold_ratio_steps.is_always(1)

    def reading(self, model, sample, gold_inputs, encoder_out, extra, log) -> Reading:
        mask = prefixes.replaceable(gold_inputs, self.padding_idx, self.ignore_prefix_size)
        mask &= ~self._stays_gold(gold_inputs)
        choose = self.choice(gold_inputs.device, self.forbidden)
        inputs, target, gold_nll = gold_inputs, sample["target"], None

        def look(scores: Tensor) -> None:
            nonlocal gold_nll
            gold_nll = self.gold_nll(scores, target, log)

        for number in range(self.passes):
            predictions = rollout.teacher_forced(
                model.decoder,
                inputs,
                encoder_out,
                choose,
                look=look if number == 0 else None,
                dtype=self.rollout_dtype,
                **extra,
            )
            if number == 0 and self.confidence > 0:
                mask &= prefixes.shift(gold_nll.neg().exp() > self.confidence)
            inputs = self.replace_inputs(gold_inputs, predictions, mask, log)
        return Reading(inputs, target)

    def _stays_gold(self, gold_inputs: Tensor) -> Tensor:
        """Mask (B, T), True where chance keeps an input gold."""
        ratio = self.gold_ratio.ratio(self.update_num())
        if ratio == 0:
            return torch.zeros_like(gold_inputs, dtype=torch.bool)
        device = gold_inputs.device
        noise = rollout.new_noise(device)
        if self.gold_mixed_by == "sentence":
            return torch.rand((len(gold_inputs), 1), generator=noise, device=device) < ratio
        steps = range(-1, gold_inputs.size(1) - 1)  # the input at position t was chosen in decoding step t - 1
        ratios = [ratio * self.gold_ratio_steps.ratio(max(step, 0)) for step in steps]
        return torch.rand(gold_inputs.shape, generator=noise, device=device) < torch.tensor(ratios, device=device)
