"""Training on the model's own prefixes: what the strategies share that let the decoder read what it chose itself."""

from dataclasses import dataclass, field
from typing import Any, Dict, NamedTuple, Optional, Tuple

import torch
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterionConfig
from omegaconf import II
from torch import Tensor, nn
from torch.nn import functional as F

from gift_fairseq import prefixes, rollout
from gift_fairseq.anchors import StartingModel
from gift_fairseq.clock import now
from gift_fairseq.criterions.base import GiftCriterion
from gift_fairseq.options import UserError, check_above, check_at_least, check_choice, check_ratio
from gift_fairseq.substitution import decoder_reads, encoder_rows, unwrapped

ANCHORS = ("none", "kl", "l2")


@dataclass
class OwnPrefixConfig(LabelSmoothedCrossEntropyCriterionConfig):
    temperature: float = field(
        default=1.0,
        metadata={"help": "where tokens are drawn: what scores are divided by before the softmax, above 0; default: 1"},
    )
    top_k: int = field(
        default=0,
        metadata={"help": "where tokens are drawn: from this many best ones only, 1 or more, or 0 (all); default: 0"},
    )
    mle_weight: float = field(
        default=0.0,
        metadata={
            "help": "weight of the loss on gold prefixes, from the same encoder pass, in the updates that train on own "
            "ones, which get the rest; from 0 to below 1; default: 0"
        },
    )
    anchor: str = field(
        default="none",
        metadata={
            "help": "what holds the model near the one it started from (--finetune-from-model), in the updates that "
            "train on own prefixes: none; kl (divergence from it on gold prefixes) or l2 (distance of the weights); "
            "default: none"
        },
    )
    anchor_weight: float = field(
        default=0.0,
        metadata={
            "help": "weight of the anchor: times nats a token (kl), times half the squared distance (l2); default: 0"
        },
    )
    rollout_dtype: str = field(
        default="model",
        metadata={
            "help": "floating-point type of the arithmetic that chooses tokens (not of the pass that is trained on): "
            f"{', '.join(rollout.DTYPES)}; default: model, the type in which the model trains"
        },
    )
    # read, not offered
    finetune_from_model: Optional[str] = II("checkpoint.finetune_from_model")


def refuse_drawing(cfg: OwnPrefixConfig, reason: str) -> None:
    """:class:`UserError` with the ``reason`` if ``cfg`` says how to draw tokens."""
    for option, value, default in (("--temperature", cfg.temperature, 1), ("--top-k", cfg.top_k, 0)):
        if value != default:
            raise UserError(f"{option} is {value}, but {reason}")


class Reading(NamedTuple):
    """What the decoder reads in a training forward in place of the gold inputs (B, T)."""

    inputs: Tensor  # (R, L), padded on the right
    tokens: Tensor  # (R, L), behind which input a loss is taken: padding where none is
    sentences: Optional[Tensor] = None  # (R,), of which sentence each row is a prefix; None: row b of sentence b


class OwnPrefixCriterion(GiftCriterion):
    """``(1 - w) own + w sum l(x) + a anchor``, from one pass over the rows of all; what ``own`` is, a strategy says.

    With w the MLE weight, mixing gold prefixes in as MIXER (Ranzato et al. 2016) and Edunov et al. (2018)
    do. The anchor is against forgetting (Korakakis and Vlachos 2022, Improving Scheduled Sampling with Elastic Weight
    Consolidation for Neural Machine Translation):

    - ``kl``: ``sum_t KL(p_0(. | x[..t]) || p(. | x[..t]))`` over gold prefixes, p_0 the model it started from;
    - ``l2``: ``n / 2 ||theta - theta_0||^2``, n the batch's sample size: fairseq's trainer divides the summed gradient
      by the summed sample size, so only a term with that factor adds up, over batches and workers, to half the squared
      distance once an update. It is computed in float32 at least, as the token losses are, whose gradient is a sum over
      the same n. Where we differ from elastic weight consolidation: all weights count alike, not by their Fisher
      information.
    """

    def __init__(self, cfg, task):
        super().__init__(cfg, task)
        self.sampling = rollout.Choice(
            temperature=check_above("--temperature", cfg.temperature, 0), top_k=check_at_least("--top-k", cfg.top_k, 0)
        )
        self.mle_weight = check_ratio("--mle-weight", cfg.mle_weight)
        if self.mle_weight == 1:
            raise UserError("--mle-weight is 1, which leaves nothing to own prefixes: use --criterion gift_standard")
        self.anchor = check_choice("--anchor", cfg.anchor, ANCHORS)
        self.anchor_weight = check_at_least("--anchor-weight", cfg.anchor_weight, 0)
        if (self.anchor == "none") != (self.anchor_weight == 0):
            raise UserError(
                f"--anchor-weight is {self.anchor_weight:g} and --anchor is {self.anchor}: an anchor has a weight "
                "above 0, and a weight needs an anchor, kl or l2"
            )
        self.starting_file = cfg.finetune_from_model
        if self.anchor != "none" and not self.starting_file:
            raise UserError(f"--anchor is {self.anchor}, but there is no --finetune-from-model to stay near to")
        self.rollout_dtype = rollout.dtype_named(cfg.rollout_dtype)
        self._starting_model: Optional[StartingModel] = None

    # ---- what a strategy overrides

    value_is_logged = True  # whether the value of the own loss compares with other losses; else its NLL is logged

    def reading(
        self, model: nn.Module, sample: Dict, gold_inputs: Tensor, encoder_out: Any, extra: Dict[str, Any], log: Dict
    ) -> Reading:
        """What the decoder reads of ``sample`` instead of ``gold_inputs`` (B, T); fills ``log``.

        ``extra`` are the further arguments of the model's own decoder call.
        """
        raise NotImplementedError

    def own_terms(
        self, lprobs: Tensor, reading: Reading, gold_lprobs: Optional[Tensor], target: Tensor, log: Dict[str, Any]
    ) -> Tuple[Tensor, Tensor]:
        """Loss on own prefixes and negative log-likelihood to log, nats, summed.

        ``lprobs`` (R, L, V) are of what ``reading`` read, ``gold_lprobs`` (B, T, V) of the gold inputs if they were
        read too.
        """
        raise NotImplementedError

    def reads_gold_too(self) -> bool:
        """Whether the gold inputs are read beside the own ones."""
        return self.mle_weight > 0 or self.anchor == "kl"

    # ---- the way of the data

    def training_terms(self, model, sample, log: Dict[str, Any], reduce: bool = True) -> Tuple[Tensor, Tensor]:
        if self.reads_gold():
            return super().training_terms(model, sample, log, reduce)
        target, gold_too = sample["target"], self.reads_gold_too()
        reading: Optional[Reading] = None

        def choose_inputs(gold_inputs: Tensor, encoder_out: Any, extra: Dict[str, Any]) -> Tuple[Tensor, Any]:
            nonlocal reading
            start = now(gold_inputs.device)
            reading = self.reading(model, sample, gold_inputs, encoder_out, extra, log)
            log["rollout_seconds"] = now(gold_inputs.device) - start
            inputs, sentences = reading.inputs, reading.sentences
            if gold_too:
                everyone = torch.arange(len(target), device=target.device)
                inputs = prefixes.stack(inputs, gold_inputs, self.padding_idx)
                sentences = torch.cat([everyone if sentences is None else sentences, everyone])
            if sentences is not None:
                encoder_out = encoder_rows(model, encoder_out, sentences)
            return inputs, encoder_out

        with decoder_reads(model.decoder, choose_inputs):
            net_output = model(**sample["net_input"])
        lprobs = model.get_normalized_probs(net_output, log_probs=True)
        rows, length = reading.inputs.shape
        gold_lprobs = lprobs[rows:, : target.size(1)] if gold_too else None
        own, nll = self.own_terms(lprobs[:rows, :length], reading, gold_lprobs, target, log)
        others = torch.zeros_like(own)
        if gold_too:
            gold, gold_nll = self.plain_loss_terms(*self.scored(gold_lprobs, target), reduce=True)
            others = others + self.mle_weight * gold
            log.update(gold_nll_loss=gold_nll.detach(), gold_ntokens=sample["ntokens"])
        if self.anchor != "none":
            distance = self._anchor(model, sample, gold_lprobs, log)
            others = others + self.anchor_weight * distance
        shown = own if self.value_is_logged else nll
        log["loss"] = ((1 - self.mle_weight) * shown + others).detach()
        return (1 - self.mle_weight) * own + others, nll

    def _anchor(self, model, sample, gold_lprobs: Optional[Tensor], log: Dict[str, Any]) -> Tensor:
        if self._starting_model is None:
            self._starting_model = StartingModel(self.starting_file, unwrapped(model))
        start = self._starting_model
        if self.anchor == "l2":
            distance = start.squared_distance(model) / 2 * self.sample_size(sample)
        else:
            theirs = start.lprobs(sample["net_input"])
            divergence = F.kl_div(gold_lprobs, theirs, reduction="none", log_target=True).sum(-1)
            divergence = divergence.masked_fill(sample["target"].eq(self.padding_idx), 0)
            distance = divergence[:, self.ignore_prefix_size :].sum()
        log["anchor"] = distance.detach()
        return distance
