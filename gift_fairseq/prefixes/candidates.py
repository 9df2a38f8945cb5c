"""Several whole hypotheses of every sentence: sampled from the model, or the best of a beam."""

from dataclasses import dataclass, field
from functools import partial
from typing import Optional

import torch
from fairseq.data import Dictionary
from fairseq.dataclass import FairseqDataclass
from torch import Tensor

from gift_fairseq import rollout
from gift_fairseq.errors import check_at_least, check_choice
from gift_fairseq.prefixes import tensors
from gift_fairseq.prefixes.free_running import ShareFlags, after_own_tokens, most_tokens, share_of, until_eos
from gift_fairseq.prefixes.source import (
    Decoding,
    Generation,
    Prefixes,
    RolloutFlags,
    Symbols,
    sampling,
    without_sampling,
)
from gift_fairseq.substitution import encoder_rows, unwrapped

SOURCES = ("sample", "beam")
NOTHING_SAMPLED = "a beam samples nothing: leave out --candidates-from beam"


@dataclass
class CandidateFlags(FairseqDataclass):
    candidates: int = field(
        default=4,
        metadata={"help": "hypotheses of each sentence, 2 or more (1, the greedy one, for --targets best); default: 4"},
    )
    candidates_from: str = field(
        default="sample",
        metadata={
            "help": "source of the hypotheses: sample (from the model; equal ones count once) or beam (the best of "
            "fairseq's beam search); default: sample"
        },
    )


def is_beam(cfg: CandidateFlags) -> bool:
    return check_choice("--candidates-from", cfg.candidates_from, SOURCES) == "beam"


class Hypotheses:
    """``count`` whole hypotheses of every sentence, without gradient; those that are drawn may be equal.

    With ``greedy`` the first of those that are drawn is the greedy one.
    """

    def __init__(
        self,
        count: int,
        by_beam: bool,
        generation: Generation,
        symbols: Symbols,
        vocabulary: Dictionary,
        greedy: bool = False,
    ):
        self.count, self.by_beam, self.generation, self.greedy = count, by_beam, generation, greedy
        self.symbols, self.vocabulary = symbols, vocabulary

    def of(self, decoding: Decoding, longest: Tensor) -> Tensor:
        """Tokens (B N, L), row r of sentence ``r // N``; ended by ``</s>`` or cut at ``longest`` (B,), then padding.

        A beam has the best first, each ended by ``</s>``.
        """
        return self._beam(decoding, longest) if self.by_beam else self._drawn(decoding, longest)

    def _drawn(self, decoding: Decoding, longest: Tensor) -> Tensor:
        inputs, count = decoding.gold_inputs, self.count
        drawn = self.generation.sampler_for(self.symbols.forbidden_but_eos, inputs.device)
        return until_eos(
            decoding.decoder,
            inputs,
            decoding.encoder_out,
            rollout.SeveralDrawn(drawn, count, len(inputs) * count, self.greedy),
            self.symbols,
            longest,
            self.generation.dtype,
            copies=count,
            reorder=partial(encoder_rows, decoding.model),
        )

    def _beam(self, decoding: Decoding, longest: Tensor) -> Tensor:
        return rollout.beam(
            unwrapped(decoding.model),
            decoding.sample["net_input"],
            decoding.encoder_out,
            self.vocabulary,
            self.count,
            longest,
            self.symbols.ignored,
            self.generation.dtype,
        )


@dataclass
class WeighedFlags(ShareFlags, RolloutFlags, CandidateFlags):
    risk_gold: bool = field(
        default=False, metadata={"help": "add the gold translation to the hypotheses that are weighed; default: off"}
    )


class CandidatePrefixes:
    """In a share of the updates, the distinct ones of ``--candidates`` whole hypotheses of every sentence."""

    def __init__(self, cfg: WeighedFlags, symbols: Symbols, vocabulary: Dictionary):
        self.due = share_of(cfg)
        self.length_cap = check_at_least("--length-cap", cfg.length_cap, 1)
        self.candidates, by_beam = check_at_least("--candidates", cfg.candidates, 2), is_beam(cfg)
        generation = without_sampling(cfg, NOTHING_SAMPLED) if by_beam else sampling(cfg)
        self.hypotheses = Hypotheses(self.candidates, by_beam, generation, symbols, vocabulary)
        self.without_gold = cfg.risk_gold  # it is weighed as one more, so none of these may equal it
        self.symbols = symbols

    def read(self, decoding: Decoding) -> Prefixes:
        target, pad = decoding.target, self.symbols.pad
        tokens = self.hypotheses.of(decoding, most_tokens(target, self.length_cap, decoding.decoder, pad))
        sentences = torch.arange(len(target), device=target.device).repeat_interleave(self.candidates)
        kept = first_of_equals(tokens, self.candidates, target if self.without_gold else None, pad)
        return after_own_tokens(tokens[kept], decoding.gold_inputs, sentences[kept], self.symbols)


def first_of_equals(tokens: Tensor, candidates: int, target: Optional[Tensor], padding_idx: int) -> Tensor:
    """Mask (B N,), True for the first of equal rows among the N ``candidates`` of a sentence, of ``tokens`` (B N, L).

    None that equals its ``target`` (B, T), if that is given.
    """
    each = tokens.view(-1, candidates, tokens.size(1))
    repeated = (each.unsqueeze(2) == each.unsqueeze(1)).all(-1).tril(diagonal=-1).any(2).flatten()
    if target is not None:
        rows = tensors.stack(tokens, target.repeat_interleave(candidates, dim=0), padding_idx)
        repeated |= (rows[: len(tokens)] == rows[len(tokens) :]).all(-1)
    return ~repeated
