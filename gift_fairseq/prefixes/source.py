"""Where prefixes come from: what a source is given, and what it gives."""

from dataclasses import dataclass, field
from typing import Any, Dict, NamedTuple, Optional, Protocol, Tuple

import torch
from fairseq.data import Dictionary
from fairseq.dataclass import FairseqDataclass
from torch import Tensor, nn

from gift_fairseq import metrics, rollout
from gift_fairseq.errors import UserError, check_above, check_at_least, check_choice

metrics.ratio("replaced", "n_replaced", "n_inputs", "share of decoder inputs that the model generated, %", 100.0)
metrics.ratio(
    "choosing_accuracy",
    "n_chosen_right",
    "n_chosen",
    "share of generated tokens that are the gold token of their position, %",
    100.0,
)


class Symbols(NamedTuple):
    """The special ids of the target vocabulary, and how many tokens at the start of a target are given."""

    pad: int
    eos: int
    bos: int
    ignored: int  # fairseq's --ignore-prefix-size: forced in every prefix, and no loss is taken on them

    @classmethod
    def of(cls, vocabulary: Dictionary, ignored: int = 0) -> "Symbols":
        return cls(vocabulary.pad(), vocabulary.eos(), vocabulary.bos(), ignored)

    @property
    def forbidden(self) -> Tuple[int, ...]:
        """What no decoder may generate inside a sentence."""
        return self.pad, self.eos, self.bos

    @property
    def forbidden_but_eos(self) -> Tuple[int, ...]:
        """What no decoder may generate where it may end the sentence."""
        return self.pad, self.bos


class Decoding(NamedTuple):
    """One batch inside the model's forward, where the decoder is about to read its inputs; or encoded, outside one."""

    model: nn.Module  # as fairseq wraps it
    sample: Dict[str, Any]
    gold_inputs: Tensor  # (B, T): the start symbol, then the targets shifted by one
    encoder_out: Any
    extra: Dict[str, Any] = {}  # further keyword arguments of the model's own call of its decoder
    update_num: int = 0

    @property
    def decoder(self) -> nn.Module:
        return self.model.decoder

    @property
    def target(self) -> Tensor:
        """(B, T) gold targets, ``</s>`` at the end, padded on the right."""
        return self.sample["target"]


class Prefixes(NamedTuple):
    """What the decoder reads in a training forward in place of the gold inputs."""

    inputs: Tensor  # (R, L), padded on the right: position t is predicted after inputs[:, : t + 1]
    next_tokens: Tensor  # (R, L): the token that stands at each position; padding where no loss is taken
    sentences: Optional[Tensor]  # (R,): of which sentence each row is a prefix; None: row b of sentence b
    log: Dict[str, Any]
    own: Optional[Tensor] = None  # (R,): which rows are a whole hypothesis of the model's; None: not told apart


class PrefixSource(Protocol):
    """Gold prefixes have no source: the criterion then leaves the decoder's inputs as they are."""

    def due(self, update_num: int) -> bool:
        """Whether the decoder reads this source's prefixes in that update; otherwise it reads gold ones.

        A pure function of the number (0 is the first update), so that all workers, all micro-batches, and a resumed
        run agree.
        """

    def read(self, decoding: Decoding) -> Prefixes:
        """The prefixes of one batch. It runs inside the model's forward; tokens are generated without gradient."""


# ---- flags of the sources that generate


@dataclass
class RolloutFlags(FairseqDataclass):
    temperature: float = field(
        default=1.0,
        metadata={"help": "in sampling: what scores are divided by before the softmax, above 0; default: 1"},
    )
    top_k: int = field(
        default=0, metadata={"help": "in sampling: from this many best tokens only, 2 or more, or 0 (all); default: 0"}
    )
    rollout_dtype: str = field(
        default="model",
        metadata={
            "help": "floating-point type of the arithmetic that generates tokens (not of the pass that is trained on): "
            f"{', '.join(rollout.DTYPES)}; default: model, the type in which the model trains"
        },
    )


CHOICES = ("argmax", "sample")


@dataclass
class SamplingFlags(RolloutFlags):
    choose: str = field(
        default="argmax",
        metadata={
            "help": "how each token is generated: argmax, or sample (from the softmax; adding Gumbel noise and taking "
            "the argmax is the same); default: argmax"
        },
    )


class Generation(NamedTuple):
    """How a source generates tokens; see :class:`RolloutFlags`."""

    sampler: rollout.Sampler  # temperature 0: the argmax
    dtype: Optional[torch.dtype]  # None: the model's own

    def sampler_for(self, forbidden: Tuple[int, ...], device: torch.device) -> rollout.Sampler:
        """The sampler of one rollout, which never takes the ids ``forbidden``."""
        return rollout.seeded(self.sampler._replace(forbidden=forbidden), device)


def sampling(cfg: RolloutFlags) -> Generation:
    """Tokens are sampled; :class:`UserError` if an option has no meaning."""
    if cfg.top_k == 1:
        raise UserError("--top-k is 1, which leaves the argmax alone: it must be 2 or more, or 0 for all tokens")
    sampler = rollout.Sampler(
        temperature=check_above("--temperature", cfg.temperature, 0), top_k=check_at_least("--top-k", cfg.top_k, 0)
    )
    return Generation(sampler, rollout.dtype_named(cfg.rollout_dtype))


def without_sampling(cfg: RolloutFlags, reason: str) -> Generation:
    """Tokens are the argmax; :class:`UserError` with the ``reason`` if ``cfg`` says how to sample."""
    sampling(cfg)
    for option, value, default in (("--temperature", cfg.temperature, 1), ("--top-k", cfg.top_k, 0)):
        if value != default:
            raise UserError(f"{option} is {value}, but {reason}")
    return Generation(rollout.Sampler(), rollout.dtype_named(cfg.rollout_dtype))


def generation_of(cfg: SamplingFlags) -> Generation:
    """As ``--choose`` says."""
    if check_choice("--choose", cfg.choose, CHOICES) == "sample":
        return sampling(cfg)
    return without_sampling(cfg, "nothing is sampled: add --choose sample")
