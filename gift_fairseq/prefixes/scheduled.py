"""Scheduled sampling for Transformers: the decoder's outputs of one parallel pass replace its inputs in the next."""

from dataclasses import dataclass, field

import torch
from fairseq.dataclass import FairseqDataclass
from torch import Tensor
from torch.nn import functional

from gift_fairseq import rollout
from gift_fairseq.errors import UserError, check_at_least, check_choice, check_ratio
from gift_fairseq.prefixes import tensors
from gift_fairseq.prefixes.source import Decoding, Generation, Prefixes, Symbols
from gift_fairseq.schedules import parse_schedule

MIXED_BY = ("token", "sentence")


@dataclass
class ScheduledFlags(FairseqDataclass):
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
            "exponential:1:0.1:30 for example, so that later inputs are replaced more often; default: 1, at all steps "
            "alike"
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
            "help": "number of passes that generate tokens before the one that is trained on, 1 or more: N passes fix "
            "the first N positions of the free-running output; default: 1"
        },
    )


class ScheduledPrefixes:
    """``x'[t + 1]`` is the token that the model generates at position t when it reads the inputs of the pass before.

    Pass 1 reads the gold inputs ``x`` (Mihaylova and Martins 2019); with ``--passes N`` each pass reads the inputs that
    the one before left (parallel scheduled sampling, Duckworth et al. 2019).

    An input stays gold with probability ``g(u) f(t)``: g is ``--gold-ratio`` over updates u (Bengio et al. 2015), f
    ``--gold-ratio-steps`` over decoding steps t (Liu et al. 2021b, Scheduled Sampling Based on Decoding Steps for
    Neural Machine Translation; they combine the two in other ways too). ``--confidence c`` also keeps it gold where
    pass 1 gave the gold token a probability of at most c (Liu et al. 2021a, Confidence-Aware Scheduled Sampling for
    Neural Machine Translation, without their random tokens above a second threshold). With c of a half or more
    the argmax *is* the gold token wherever one is replaced, as they note, in every pass: sample it.

    Where we differ from Mihaylova and Martins: tokens are generated without dropout in the decoder, embeddings are not
    mixed; the inputs that stay gold are drawn once for all passes.
    """

    def __init__(self, cfg: ScheduledFlags, symbols: Symbols, generation: Generation):
        self.symbols, self.generation = symbols, generation
        self.gold_ratio = parse_schedule("--gold-ratio", cfg.gold_ratio)
        self.gold_ratio_steps = parse_schedule("--gold-ratio-steps", cfg.gold_ratio_steps)
        self.gold_mixed_by = check_choice("--gold-mixed-by", cfg.gold_mixed_by, MIXED_BY)
        self.confidence = check_ratio("--confidence", cfg.confidence)
        self.passes = check_at_least("--passes", cfg.passes, 1)
        if self.confidence == 1:
            raise UserError("--confidence is 1, which no probability is above: use --criterion gift_standard")
        if self.confidence >= 0.5 and generation.sampler.temperature == 0:
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

    def due(self, update_num: int) -> bool:
        return not (self.gold_ratio.ratio(update_num) == 1 and self.gold_ratio_steps.is_always(1))

    def read(self, decoding: Decoding) -> Prefixes:
        gold_inputs = decoding.gold_inputs
        mask = tensors.replaceable(gold_inputs, self.symbols.pad, self.symbols.ignored)
        mask &= ~self._stays_gold(gold_inputs, decoding.update_num)
        sampler = self.generation.sampler_for(self.symbols.forbidden, gold_inputs.device)
        inputs, sure = gold_inputs, None

        def look(scores: Tensor) -> None:
            nonlocal sure
            sure = _gold_nll(scores, decoding.target, self.symbols.pad).neg().exp() > self.confidence

        for number in range(self.passes):
            tokens = rollout.teacher_forced(
                decoding.decoder,
                inputs,
                decoding.encoder_out,
                sampler,
                look=look if number == 0 and self.confidence > 0 else None,
                dtype=self.generation.dtype,
                **decoding.extra,
            )
            if sure is not None:
                mask &= tensors.shift(sure)
            inputs = tensors.replace(gold_inputs, tokens, mask)
        log = tensors.replacement_log(gold_inputs, tokens, mask, self.symbols)
        return Prefixes(inputs, decoding.target, None, log)

    def _stays_gold(self, gold_inputs: Tensor, update_num: int) -> Tensor:
        """Mask (B, T) or (B, 1), True where chance keeps an input gold."""
        ratio = self.gold_ratio.ratio(update_num)
        if ratio == 0:
            return torch.zeros_like(gold_inputs, dtype=torch.bool)
        device = gold_inputs.device
        noise = rollout.worker_generator(device)
        if self.gold_mixed_by == "sentence":
            return torch.rand((len(gold_inputs), 1), generator=noise, device=device) < ratio
        steps = range(-1, gold_inputs.size(1) - 1)  # the input at position t was generated in decoding step t - 1
        ratios = [ratio * self.gold_ratio_steps.ratio(max(step, 0)) for step in steps]
        return torch.rand(gold_inputs.shape, generator=noise, device=device) < torch.tensor(ratios, device=device)


def _gold_nll(scores: Tensor, target: Tensor, padding_idx: int) -> Tensor:
    """Negative log-likelihoods (B, T), nats, of ``target`` (B, T) by logits ``scores`` (B, T, V); padding has 0."""
    flat = scores.reshape(-1, scores.size(-1)).float()
    nll = functional.cross_entropy(flat, target.reshape(-1), ignore_index=padding_idx, reduction="none")
    return nll.view_as(target)
