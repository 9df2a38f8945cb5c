"""What the strategies share: the one forward pass, the label-smoothed loss, and what is logged of them."""

import logging
import math
import time
from typing import Any, Dict, List, Optional, Tuple

import torch
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    label_smoothed_nll_loss,
)
from fairseq.distributed import utils as distributed_utils
from fairseq.logging import metrics
from fairseq.logging.meters import MetersDict
from torch import Tensor
from torch.nn import functional as F

from gift_fairseq import memory, prefixes
from gift_fairseq.options import UserError, check_at_least, check_ratio
from gift_fairseq.substitution import check_model

logger = logging.getLogger(__name__)

LN2 = math.log(2)


class GiftCriterion(LabelSmoothedCrossEntropyCriterion):
    """Label-smoothed cross-entropy of the gold targets, whatever inputs the decoder reads.

    In evaluation mode this *is* fairseq's ``label_smoothed_cross_entropy``; so it is in training where a strategy reads
    gold inputs. A strategy overrides :meth:`loss_terms` (how token losses are weighed), or goes over
    :class:`~gift_fairseq.criterions.own_prefixes.OwnPrefixCriterion` (what the decoder reads in training).
    """

    def __init__(self, cfg, task):
        check_ratio("--label-smoothing", cfg.label_smoothing)
        check_at_least("--ignore-prefix-size", cfg.ignore_prefix_size, 0)
        if getattr(task.cfg, "left_pad_target", False):
            raise UserError("--left-pad-target is True, but targets must be padded on the right: leave it False")
        super().__init__(task, cfg.sentence_avg, cfg.label_smoothing, cfg.ignore_prefix_size, cfg.report_accuracy)
        words = task.target_dictionary
        self.eos = words.eos()
        self.forbidden = prefixes.forbidden_ids(words)
        self.forbidden_but_end = tuple(token for token in self.forbidden if token != self.eos)
        self._update_num: Optional[int] = None
        self._said_who_counts = False

    # ---- what a strategy overrides

    def reads_gold(self) -> bool:
        """Whether the decoder reads the gold inputs, and nothing else, in this training forward."""
        return True

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
        """Loss (nats), its denominator and what to log, as fairseq's criterions return them.

        ``reduce`` is fairseq's: False leaves the losses of gold inputs apart, a token each.
        """
        check_model(model)
        log: Dict[str, Any] = {}
        if model.training:
            loss, nll_loss = self.training_terms(model, sample, log, reduce)
        else:
            lprobs, target = self._gold_lprobs(model, sample, log)
            loss, nll_loss = self.plain_loss_terms(lprobs, target, reduce)
        sample_size = self.sample_size(sample)
        log.setdefault("loss", loss.detach())
        log.update(
            nll_loss=nll_loss.detach(),
            ntokens=sample["ntokens"],
            nsentences=sample["target"].size(0),
            sample_size=sample_size,
        )
        if model.training:
            log.setdefault("n_inputs", sample["ntokens"])
            log.update(n_readings=1, mem_in_use=memory.in_use())
        return loss, sample_size, log

    def sample_size(self, sample: Dict[str, Any]) -> int:
        """What the losses of ``sample`` are divided by: its number of gold tokens, or of sentences."""
        return sample["target"].size(0) if self.sentence_avg else sample["ntokens"]

    def training_terms(self, model, sample, log: Dict[str, Any], reduce: bool = True) -> Tuple[Tensor, Tensor]:
        """Loss to descend and negative log-likelihood to log of a training forward, nats; fills ``log``.

        Logged as ``loss`` is what is descended, unless ``log`` says otherwise.
        """
        lprobs, target = self._gold_lprobs(model, sample, log)
        loss, nll_loss = self.loss_terms(lprobs, target, reduce)
        log.update(n_replaced=0, gold_nll_loss=nll_loss.detach().sum(), gold_ntokens=sample["ntokens"])
        return loss, nll_loss

    def _gold_lprobs(self, model, sample, log: Dict[str, Any]) -> Tuple[Tensor, Tensor]:
        net_output = model(**sample["net_input"])
        lprobs, target = self.scored(model.get_normalized_probs(net_output, log_probs=True), sample["target"])
        self._log_accuracy(lprobs.detach(), target, log)
        return lprobs, target

    def scored(self, lprobs: Tensor, tokens: Tensor) -> Tuple[Tensor, Tensor]:
        """``lprobs`` (B, T, V) and ``tokens`` (B, T) without the ignored prefix."""
        return lprobs[:, self.ignore_prefix_size :], tokens[:, self.ignore_prefix_size :]

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

    def gold_nll(self, scores: Tensor, target: Tensor, log: Dict[str, Any]) -> Tensor:
        """Negative log-likelihoods (B, T) of ``target`` (B, T) by logits ``scores`` (B, T, V) over gold inputs.

        Logs their sum without the ignored prefix; padding has 0.
        """
        flat = scores.reshape(-1, scores.size(-1)).float()
        nll = F.cross_entropy(flat, target.reshape(-1), ignore_index=self.padding_idx, reduction="none").view_as(target)
        log["gold_ntokens"] = target.ne(self.padding_idx).sum()
        log["gold_nll_loss"] = nll[:, self.ignore_prefix_size :].sum()
        return nll

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
        log_ratio("right_tokens", "n_right_tokens", "n_oracle")
        log_ratio("risk", "risk", "n_risk")
        log_ratio("candidates", "n_candidates", "n_risk")
        if any("anchor" in log for log in logging_outputs):
            log_ratio("anchor", "anchor", "sample_size")
        peak = memory.take_peak()  # after validation too: its peak is none of the training's
        if total("n_readings") == 0:
            return
        metrics.log_scalar(
            "rollout_seconds", total("rollout_seconds") / distributed_utils.get_data_parallel_world_size(), round=4
        )
        log_ratio("mem_mib", "mem_in_use", "n_readings")
        _log_peak_of_epoch(max(peak, memory.peak_taken_by_trainer()))
        _log_seconds()

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True


def _log_seconds() -> None:
    """Logs how long the update took, from the start of fairseq's own stopwatch, which shows whole seconds only.

    The trainer starts ``train_wall`` before an update's first micro-batch and reduces metrics after the optimizer's
    step. Microseconds, so that the time of an epoch of a thousand updates is right to the millisecond.
    """
    stopwatch = metrics.get_meter("train", "train_wall")
    if stopwatch is not None and stopwatch.start_time is not None:
        metrics.log_scalar("update_seconds", time.perf_counter() - stopwatch.start_time, round=6)


_OWN_PEAK = "_peak_mem_mib"  # fairseq shows no meter of such a name


def _log_peak_of_epoch(peak: float) -> None:
    """Logs the most that this worker held in this epoch so far, MiB; read of the epoch, the most that any worker held.

    fairseq resets the meters of "train" at each epoch's end: an empty one begins a new peak. Weight 0 makes a meter
    show its last value instead of an average.
    """
    meter = metrics.get_meter("train", _OWN_PEAK)
    if meter is not None and meter.val is not None:
        peak = max(peak, meter.val)
    metrics.log_scalar(_OWN_PEAK, peak, weight=0, round=3)
    metrics.log_derived("peak_mem_mib", _peak_of_epoch, priority=10)


def _peak_of_epoch(meters: MetersDict) -> Optional[float]:
    """The peak in ``meters``; where they are those of "train", the highest of all workers.

    fairseq-train reads "train" once an epoch, on all workers alike, and the others every interval or update: only there
    may workers wait for each other. A worker without a peak takes part too.
    """
    peak = meters[_OWN_PEAK].smoothed_value
    if meters is not metrics.get_meters("train") or distributed_utils.get_data_parallel_world_size() == 1:
        return peak
    on = "cuda" if torch.cuda.is_initialized() else "cpu"
    peaks = torch.tensor([peak or 0.0], dtype=torch.float64, device=on)
    return distributed_utils.all_reduce(peaks, distributed_utils.get_data_parallel_group(), op="max").item() or None
