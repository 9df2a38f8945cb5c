"""What the strategies share: the one forward pass, the label-smoothed loss, and what is logged of them."""

import contextlib
import logging
import math
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

import torch
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    LabelSmoothedCrossEntropyCriterionConfig,
    label_smoothed_nll_loss,
)
from fairseq.distributed import utils as distributed_utils
from fairseq.logging import metrics
from torch import Tensor, nn
from torch.nn import functional as F

from gift_fairseq import memory, prefixes, rollout
from gift_fairseq.clock import now
from gift_fairseq.options import UserError, check_at_least, check_ratio
from gift_fairseq.substitution import check_model, decoder_reads

logger = logging.getLogger(__name__)

LN2 = math.log(2)


@dataclass
class RolloutConfig(LabelSmoothedCrossEntropyCriterionConfig):
    """Options of the strategies that choose tokens."""

    rollout_dtype: str = field(
        default="model",
        metadata={
            "help": "floating-point type of the arithmetic that chooses tokens (not of the pass that is trained on): "
            f"{', '.join(rollout.DTYPES)}; default: model, the type in which the model trains"
        },
    )


class GiftCriterion(LabelSmoothedCrossEntropyCriterion):
    """Label-smoothed cross-entropy of the gold targets, whatever inputs the decoder reads.

    In evaluation mode this *is* fairseq's ``label_smoothed_cross_entropy``; so it is in training where a strategy reads
    gold inputs. A strategy overrides :meth:`reads_gold` and :meth:`decoder_inputs` (what the decoder reads in training)
    or :meth:`loss_terms` (how token losses are weighed).
    """

    def __init__(self, task, sentence_avg, label_smoothing, ignore_prefix_size=0, report_accuracy=False):
        check_ratio("--label-smoothing", label_smoothing)
        check_at_least("--ignore-prefix-size", ignore_prefix_size, 0)
        if getattr(task.cfg, "left_pad_target", False):
            raise UserError("--left-pad-target is True, but targets must be padded on the right: leave it False")
        super().__init__(task, sentence_avg, label_smoothing, ignore_prefix_size, report_accuracy)
        self.forbidden = prefixes.forbidden_ids(task.target_dictionary)
        self._update_num: Optional[int] = None
        self._said_who_counts = False

    # ---- what a strategy overrides

    def reads_gold(self) -> bool:
        """Whether the decoder reads the gold inputs in this training forward."""
        return True

    def decoder_inputs(
        self,
        decoder: nn.Module,
        gold_inputs: Tensor,
        encoder_out: Any,
        extra: Dict[str, Any],
        target: Tensor,
        log: Dict[str, Any],
    ) -> Tensor:
        """The inputs (B, T) that the decoder reads instead of ``gold_inputs`` (B, T); fills ``log``.

        ``target`` (B, T) are the gold tokens, ``extra`` the further arguments of the model's own decoder call.
        """
        raise NotImplementedError

    def loss_terms(self, lprobs: Tensor, target: Tensor, reduce: bool) -> Tuple[Tensor, Tensor]:
        """In training: loss to descend and negative log-likelihood to log, in nats, summed over tokens if ``reduce``.

        ``lprobs`` (B, T, V) are log-probabilities, ``target`` (B, T) the gold tokens, both without the ignored prefix.
        """
        return self.plain_loss_terms(lprobs, target, reduce)

    # ---- the number of the update

    def set_num_updates(self, num_updates: int) -> None:
        """Called by the ``gift_translation`` task before every training step; 0 is the first update."""
        self._update_num = num_updates

    def update_num(self) -> int:
        """The number of the running update. Where no task hands it on, the criterion counts it itself.

        It then follows the ``num_updates`` that fairseq's trainer logs after every update and after a resume, which
        is the same on all workers and for all micro-batches of one update.
        """
        if self._update_num is not None:
            return self._update_num
        if not self._said_who_counts:
            self._said_who_counts = True
            logger.info("updates are counted by the criterion: the task does not hand on the update number")
        for meters in metrics.get_active_aggregators():
            if "num_updates" in meters:
                return int(meters["num_updates"].val)
        return 0

    # ---- the way of the data

    def forward(self, model, sample, reduce=True):
        """Loss (nats), its denominator and what to log, as fairseq's criterions return them."""
        check_model(model)
        log: Dict[str, Any] = {}
        with self._inputs_swapped(model, sample, log):
            net_output = model(**sample["net_input"])
        lprobs, target = self._lprobs_and_target(model, net_output, sample)
        loss_terms = self.loss_terms if model.training else self.plain_loss_terms
        loss, nll_loss = loss_terms(lprobs, target, reduce)
        sample_size = sample["target"].size(0) if self.sentence_avg else sample["ntokens"]
        log.update(
            loss=loss.detach(),
            nll_loss=nll_loss.detach(),
            ntokens=sample["ntokens"],
            nsentences=sample["target"].size(0),
            sample_size=sample_size,
        )
        self._log_accuracy(lprobs.detach(), target, log)
        if model.training:
            if "n_replaced" not in log:  # the decoder read gold inputs
                log.update(n_replaced=0, gold_nll_loss=nll_loss.detach().sum(), gold_ntokens=sample["ntokens"])
            log.update(n_inputs=sample["ntokens"], n_readings=1, mem_in_use=memory.in_use())
        return loss, sample_size, log

    def _inputs_swapped(self, model: nn.Module, sample: Dict[str, Any], log: Dict[str, Any]):
        if not model.training or self.reads_gold():
            return contextlib.nullcontext()
        decoder, target = model.decoder, sample["target"]

        def choose_inputs(gold_inputs: Tensor, encoder_out: Any, extra: Dict[str, Any]) -> Tensor:
            start = now(gold_inputs.device)
            inputs = self.decoder_inputs(decoder, gold_inputs, encoder_out, extra, target, log)
            log["rollout_seconds"] = now(gold_inputs.device) - start
            return inputs

        return decoder_reads(decoder, choose_inputs)

    def _lprobs_and_target(self, model, net_output, sample) -> Tuple[Tensor, Tensor]:
        lprobs = model.get_normalized_probs(net_output, log_probs=True)
        target = model.get_targets(sample, net_output)
        skip = self.ignore_prefix_size
        return lprobs[:, skip:], target[:, skip:]

    def plain_loss_terms(self, lprobs: Tensor, target: Tensor, reduce: bool) -> Tuple[Tensor, Tensor]:
        """Label-smoothed cross-entropy and negative log-likelihood; shapes as in :meth:`loss_terms`."""
        return label_smoothed_nll_loss(
            lprobs.reshape(-1, lprobs.size(-1)),
            target.reshape(-1),
            self.eps,
            ignore_index=self.padding_idx,
            reduce=reduce,
        )

    def replace_inputs(self, gold_inputs: Tensor, predictions: Tensor, mask: Tensor, log: Dict[str, Any]) -> Tensor:
        """``gold_inputs`` with ``predictions`` read one position later where ``mask`` is True; all (B, T).

        Logs how many were replaced, and how many of all that could have been were predicted right.
        """
        candidates = prefixes.replaceable(gold_inputs, self.padding_idx, self.ignore_prefix_size)
        right = prefixes.shift(predictions).eq(gold_inputs) & candidates
        log.update(n_replaced=mask.sum(), n_chosen=candidates.sum(), n_chosen_right=right.sum())
        return prefixes.replace(gold_inputs, predictions, mask)

    def log_gold_nll(self, scores: Tensor, target: Tensor, log: Dict[str, Any]) -> None:
        """Logs the negative log-likelihood of ``target`` (B, T) by logits ``scores`` (B, T, V) over gold inputs."""
        log["gold_ntokens"] = target.ne(self.padding_idx).sum()
        scores, target = scores[:, self.ignore_prefix_size :], target[:, self.ignore_prefix_size :]
        log["gold_nll_loss"] = F.cross_entropy(
            scores.reshape(-1, scores.size(-1)).float(),
            target.reshape(-1),
            ignore_index=self.padding_idx,
            reduction="sum",
        )

    # ---- what is logged

    def _log_accuracy(self, lprobs: Tensor, target: Tensor, log: Dict[str, Any]) -> None:
        first = target[:, :1].ne(self.padding_idx)
        log["n_first"] = first.sum()
        log["n_first_right"] = (lprobs[:, :1].argmax(-1).eq(target[:, :1]) & first).sum()
        if self.report_accuracy:
            scored = target.ne(self.padding_idx)
            log["total"] = scored.sum()
            log["n_correct"] = (lprobs.argmax(-1).eq(target) & scored).sum()

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        """Logs ratios of sums over all micro-batches and workers: what one big batch would have logged."""
        super().reduce_metrics(logging_outputs)

        def total(key: str) -> float:
            return float(sum(log.get(key, 0) for log in logging_outputs))

        def log_ratio(name: str, part: str, whole: str, scale: float = 1.0) -> None:
            if total(whole) > 0:
                metrics.log_scalar(name, scale * total(part) / total(whole), total(whole), round=3)

        log_ratio("gold_nll_loss", "gold_nll_loss", "gold_ntokens", 1 / LN2)
        log_ratio("first_token_accuracy", "n_first_right", "n_first", 100.0)
        log_ratio("choosing_accuracy", "n_chosen_right", "n_chosen", 100.0)
        log_ratio("replaced", "n_replaced", "n_inputs", 100.0)
        peak = memory.take_peak()  # after validation too: its peak is none of the training's
        if total("n_readings") == 0:
            return
        metrics.log_scalar(
            "rollout_seconds", total("rollout_seconds") / distributed_utils.get_data_parallel_world_size(), round=4
        )
        log_ratio("mem_mib", "mem_in_use", "n_readings")
        _log_peak_of_epoch(peak)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True


def _log_peak_of_epoch(peak: float) -> None:
    """Logs the most that any worker held in this epoch so far, MiB.

    fairseq resets the meters of "train" at each epoch's end: an empty one begins a new peak. Weight 0 makes a meter
    show its last value instead of an average.
    """
    if distributed_utils.get_data_parallel_world_size() > 1:
        group = distributed_utils.get_data_parallel_group()
        on = "cuda" if torch.cuda.is_initialized() else "cpu"
        peak = distributed_utils.all_reduce(torch.tensor([peak], device=on), group, op="max").item()
    meter = metrics.get_meter("train", "peak_mem_mib")
    if meter is not None and meter.val is not None:
        peak = max(peak, meter.val)
    metrics.log_scalar("peak_mem_mib", peak, weight=0, round=3)
