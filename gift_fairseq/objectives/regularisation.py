"""Regularisation to the initial model: a KL penalty on gold prefixes, or the L2 distance of the weights."""

import copy
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

import torch
from fairseq.dataclass import FairseqDataclass
from omegaconf import II
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from gift_fairseq import metrics, rollout
from gift_fairseq.checkpoints.files import read_checkpoint
from gift_fairseq.errors import UserError, check_at_least, check_choice
from gift_fairseq.prefixes.source import Symbols
from gift_fairseq.substitution import unwrapped

ANCHORS = ("none", "kl", "l2")
metrics.ratio(
    "anchor", "anchor", "anchor_size", "distance from the initial model: nats a token (kl), half the square (l2)"
)


@dataclass
class RegularisationFlags(FairseqDataclass):
    anchor: str = field(
        default="none",
        metadata={
            "help": "regularisation to the initial model (--finetune-from-model), in the updates that train on "
            "model-generated prefixes: none; kl (divergence from it on gold prefixes) or l2 (distance of the weights); "
            "default: none"
        },
    )
    anchor_weight: float = field(
        default=0.0,
        metadata={
            "help": "weight of --anchor, 0 or more: times nats a token (kl), times half the squared distance (l2); "
            "default: 0"
        },
    )
    # read, not offered
    finetune_from_model: Optional[str] = II("checkpoint.finetune_from_model")


def kl_divergence(lprobs: Tensor, initial_lprobs: Tensor, target: Tensor, padding_idx: int, ignored: int) -> Tensor:
    """``sum_t KL(p_0(. | x[..t]) || p(. | x[..t]))``, nats, without padding and the ``ignored`` first tokens.

    ``lprobs`` and ``initial_lprobs`` (B, T, V) are the log-probabilities of p and p_0, ``target`` (B, T) the tokens.
    """
    divergence = functional.kl_div(lprobs, initial_lprobs, reduction="none", log_target=True).sum(-1)
    return divergence.masked_fill(target.eq(padding_idx), 0)[:, ignored:].sum()


class InitialModel:
    """A frozen copy of the model as ``path`` (``--finetune-from-model``) has it, on the device of the running one.

    It is read from the file, not from the running model: after a resume that one has moved on. It is no module, so that
    neither fairseq's optimizer nor its checkpoints see it.
    """

    def __init__(self, path: str, model: nn.Module):
        computed = (value for module in model.modules() for value in vars(module).values())
        # fconv's weights are computed anew from their parts in every forward; with a gradient they cannot be copied
        memo = {id(value): value.detach() for value in computed if isinstance(value, Tensor) and not value.is_leaf}
        self.model = copy.deepcopy(model, memo)  # its architecture, device and type
        state = read_checkpoint("--finetune-from-model", path, model_alone=True)
        self.model.load_state_dict(state["model"], strict=True)
        self.model.eval().requires_grad_(False)

    def lprobs(self, net_input: Dict[str, Any]) -> Tensor:
        """Log-probabilities (B, T, V) on gold inputs, without gradient or dropout; the random stream stays."""
        with rollout.generating(self.model, net_input["src_tokens"].device):
            return self.model.get_normalized_probs(self.model(**net_input), log_probs=True)

    def squared_distance(self, model: nn.Module) -> Tensor:
        """Sum of the squared differences of all parameters of ``model`` from the initial ones."""
        pairs = zip(model.parameters(), self.model.parameters())
        parts: List[Tensor] = [(_wide(now) - _wide(then)).pow(2).sum() for now, then in pairs if now.requires_grad]
        return torch.stack(parts).sum()


def _wide(weight: Tensor) -> Tensor:
    """In float32 at least: half precision holds no sum of small squares."""
    return weight.to(torch.promote_types(weight.dtype, torch.float32))


def _check_wrapper(model: nn.Module) -> None:
    """:class:`UserError` if gradients that do not come through ``model``'s forward pass cannot be reduced."""
    wrapped = getattr(model, "module", model)  # fairseq's proxy around torch's wrapper
    if isinstance(wrapped, DistributedDataParallel) and wrapped.find_unused_parameters:
        raise UserError(
            "--anchor is l2, which gives every weight a gradient, but --find-unused-parameters of pytorch_ddp allows "
            "none to those that a batch does not use: add --ddp-backend legacy_ddp, or take --anchor kl"
        )


class Regularisation:
    """``a`` times the distance from the initial model, against forgetting (Korakakis and Vlachos 2022, Improving
    Scheduled Sampling with Elastic Weight Consolidation for Neural Machine Translation).

    ``kl``: :func:`kl_divergence` on gold prefixes. ``l2``: ``n / 2 ||theta - theta_0||^2`` with n the sample size of
    the batch: fairseq's trainer divides the summed gradient by the summed sample size, so only a term with that factor
    adds up, over batches and workers, to half the squared distance once an update. It is computed in float32 at least.
    Where we differ from elastic weight consolidation: all weights count alike, not by their Fisher information.
    """

    def __init__(self, cfg: RegularisationFlags, symbols: Symbols):
        self.kind, self.weight, self.symbols = cfg.anchor, cfg.anchor_weight, symbols
        check_choice("--anchor", self.kind, ANCHORS)
        check_at_least("--anchor-weight", self.weight, 0)
        if (self.kind == "none") != (self.weight == 0):
            raise UserError(
                f"--anchor-weight is {self.weight:g} and --anchor is {self.kind}: an anchor has a weight above 0, and "
                "a weight needs an anchor, kl or l2"
            )
        self.initial_file = cfg.finetune_from_model
        if self.kind != "none" and not self.initial_file:
            raise UserError(f"--anchor is {self.kind}, but there is no --finetune-from-model to stay near to")
        self.needs_gold = self.kind == "kl"
        self._initial: Optional[InitialModel] = None  # built at the first use, when the model is on its device

    def distance(
        self, model: nn.Module, sample: Dict[str, Any], gold_lprobs: Optional[Tensor], sample_size: int
    ) -> Tensor:
        """See above; ``gold_lprobs`` (B, T, V) if :attr:`needs_gold`."""
        if self.kind == "l2":
            _check_wrapper(model)
        if self._initial is None:
            self._initial = InitialModel(self.initial_file, unwrapped(model))
        if self.kind == "l2":
            return self._initial.squared_distance(model) / 2 * sample_size
        initial_lprobs = self._initial.lprobs(sample["net_input"])
        return kl_divergence(gold_lprobs, initial_lprobs, sample["target"], self.symbols.pad, self.symbols.ignored)
