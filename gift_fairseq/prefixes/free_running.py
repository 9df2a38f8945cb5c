"""Free-running prefixes: in a share of the updates the decoder reads what it generates itself."""

from dataclasses import dataclass, field
from typing import Any, Callable, Optional

import torch
from fairseq.dataclass import FairseqDataclass
from torch import Tensor, nn

from gift_fairseq import rollout
from gift_fairseq.errors import UserError, check_at_least
from gift_fairseq.prefixes import tensors
from gift_fairseq.prefixes.source import Decoding, Generation, Prefixes, Symbols
from gift_fairseq.schedules import parse_schedule

LENGTH_CAP = 1.5


@dataclass
class ShareFlags(FairseqDataclass):
    generate_ratio: str = field(
        default="0.1",
        metadata={
            "help": "share of the optimizer updates that train on the decoder's own free-running output, a ratio from "
            "0 (off) to 1 (every update), 0.1 is every tenth; or a schedule over the updates, linear:0:0.2:1000 for "
            "example; default: 0.1"
        },
    )
    length_cap: float = field(
        default=LENGTH_CAP,
        metadata={
            "help": "maximum length of output that runs until </s>, as a multiple of the gold length, 1 or more; "
            "default: 1.5"
        },
    )


def share_of(cfg: ShareFlags) -> Callable[[int], bool]:
    """Which update numbers belong to the share: ``due`` of a :class:`~gift_fairseq.prefixes.source.PrefixSource`."""
    return parse_schedule("--generate-ratio", cfg.generate_ratio).falls_on


@dataclass
class GraphFlags(FairseqDataclass):
    rollout_cuda_graphs: bool = field(
        default=False,
        metadata={
            "help": "on CUDA, capture the steps of fairseq's Transformer as graphs and replay them; default: off, as "
            "no GPU has run it yet"
        },
    )


class GoldLengthPrefixes:
    """Free-running generation from the start symbol to the gold length, with key and value caches."""

    def __init__(self, cfg: ShareFlags, symbols: Symbols, generation: Generation, cuda_graphs: bool = False):
        self.due = share_of(cfg)
        self.symbols, self.generation, self.cuda_graphs = symbols, generation, cuda_graphs
        if check_at_least("--length-cap", cfg.length_cap, 1) != LENGTH_CAP:
            raise UserError(f"--length-cap is {cfg.length_cap}, but outputs have the gold length: add --targets oracle")

    def read(self, decoding: Decoding) -> Prefixes:
        gold_inputs, symbols = decoding.gold_inputs, self.symbols
        tokens = rollout.free_running(
            decoding.decoder,
            gold_inputs,
            decoding.encoder_out,
            self.generation.sampler_for(symbols.forbidden, gold_inputs.device),
            symbols.pad,
            symbols.ignored,
            self.generation.dtype,
            self.cuda_graphs,
        )
        mask = tensors.replaceable(gold_inputs, symbols.pad, symbols.ignored)
        log = tensors.replacement_log(gold_inputs, tokens, mask, symbols)
        return Prefixes(tensors.replace(gold_inputs, tokens, mask), decoding.target, None, log)


class OwnLengthPrefixes:
    """Free-running generation until ``</s>``, or until ``--length-cap`` gold lengths."""

    def __init__(self, cfg: ShareFlags, symbols: Symbols, generation: Generation):
        self.due = share_of(cfg)
        self.length_cap = check_at_least("--length-cap", cfg.length_cap, 1)
        self.symbols, self.generation = symbols, generation

    def read(self, decoding: Decoding) -> Prefixes:
        longest = most_tokens(decoding.target, self.length_cap, decoding.decoder, self.symbols.pad)
        sampler = self.generation.sampler_for(self.symbols.forbidden_but_eos, decoding.target.device)
        tokens = until_eos(
            decoding.decoder,
            decoding.gold_inputs,
            decoding.encoder_out,
            sampler,
            self.symbols,
            longest,
            self.generation.dtype,
        )
        return after_own_tokens(tokens, decoding.gold_inputs, None, self.symbols)


def most_tokens(target: Tensor, length_cap: float, decoder: nn.Module, padding_idx: int) -> Tensor:
    """The most tokens (B,) that may be generated for ``target`` (B, T): ``length_cap`` times as many, rounded up."""
    lengths = target.ne(padding_idx).sum(dim=1)
    return tensors.times(lengths, length_cap).ceil().clamp(max=decoder.max_positions()).long()


def until_eos(
    decoder: nn.Module,
    gold_inputs: Tensor,
    encoder_out: Any,
    sampler: Callable[[Tensor, Tensor], Tensor],
    symbols: Symbols,
    longest: Tensor,
    dtype: Optional[torch.dtype] = None,
    **several: Any,
) -> Tensor:
    """What the decoder generates (R, L) for the sentences of ``encoder_out``; see :func:`rollout.until_eos`.

    The start symbol and the ignored prefix are those of ``gold_inputs`` (B, T). Where no sentence is as long as the
    prefix, padding is forced after it, as in a batch with a longer one.
    """
    forced = gold_inputs[:, : 1 + symbols.ignored]
    missing = 1 + symbols.ignored - forced.size(1)
    return rollout.until_eos(
        decoder,
        nn.functional.pad(forced, (0, missing), value=symbols.pad),
        encoder_out,
        sampler,
        symbols.eos,
        symbols.pad,
        longest,
        dtype,
        **several,
    )


def after_own_tokens(tokens: Tensor, gold_inputs: Tensor, sentences: Optional[Tensor], symbols: Symbols) -> Prefixes:
    """The decoder reads ``tokens`` (R, L), which it generated, each after the one before.

    ``sentences`` (R,) as in :class:`Prefixes`; ``gold_inputs`` (B, T) give the start symbol.
    """
    start = gold_inputs[:, 0] if sentences is None else gold_inputs[sentences, 0]
    inputs = tensors.after(start, tokens, symbols.pad)
    generated = tensors.replaceable(inputs, symbols.pad, symbols.ignored).sum()
    return Prefixes(inputs, tokens, sentences, {"n_replaced": generated, "n_inputs": inputs.ne(symbols.pad).sum()})
