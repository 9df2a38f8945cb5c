"""The criterion of all strategies: one forward pass, the sum of the terms, and what is logged."""

import logging
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

import torch
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.logging import metrics as fairseq_metrics
from torch import Tensor

from gift_fairseq import metrics
from gift_fairseq.errors import UserError, check_at_least, check_ratio, one_sentence
from gift_fairseq.objectives.gold import GoldTargets
from gift_fairseq.objectives.objective import Objective, Terms
from gift_fairseq.objectives.regularisation import Regularisation, RegularisationFlags
from gift_fairseq.prefixes import tensors
from gift_fairseq.prefixes.source import Decoding, Prefixes, PrefixSource, Symbols
from gift_fairseq.substitution import check_autoregressive, check_one_softmax, decoder_reads, encoder_rows

logger = logging.getLogger(__name__)

metrics.ratio(
    "gold_nll_loss", "gold_nll_loss", "gold_ntokens", "negative log-likelihood on gold inputs, bits", 1 / metrics.LN2
)


@dataclass
class MixFlags(RegularisationFlags):
    mle_weight: float = field(
        default=0.0,
        metadata={
            "help": "weight of the loss on gold prefixes, from the same encoder pass, in the updates that train on "
            "model-generated ones, which get the rest; from 0 to below 1; default: 0"
        },
    )


class GiftCriterion(LabelSmoothedCrossEntropyCriterion):
    """``(1 - w) objective(prefixes) + w sum l(x) + a distance``, from one pass over the rows of all.

    A strategy says where prefixes come from (a source) and what is descended after them (an objective). In an update in
    which the source is not due, and in evaluation, this is fairseq's ``label_smoothed_cross_entropy`` on gold inputs.
    Without a source the objective is taken on gold inputs. w is ``--mle-weight``, which mixes gold prefixes in as MIXER
    (Ranzato et al. 2016) and Edunov et al. (2018) do; the distance is
    :class:`~gift_fairseq.objectives.regularisation.Regularisation`.
    """

    def __init__(self, cfg, task):
        check_ratio("--label-smoothing", cfg.label_smoothing)
        check_at_least("--ignore-prefix-size", cfg.ignore_prefix_size, 0)
        if getattr(task.cfg, "left_pad_target", False):
            raise UserError("--left-pad-target is True, but targets must be padded on the right: leave it False")
        super().__init__(task, cfg.sentence_avg, cfg.label_smoothing, cfg.ignore_prefix_size, cfg.report_accuracy)
        self.symbols = Symbols.of(task.target_dictionary, cfg.ignore_prefix_size)
        self.gold_targets = GoldTargets(cfg, self.symbols)
        self.source: Optional[PrefixSource] = None
        self.objective: Objective = self.gold_targets
        self.encodes_twice = False
        self._update_num: Optional[int] = None
        self._said_who_counts = False

    def train_on(self, source: PrefixSource, objective: Objective, cfg: MixFlags, encodes_twice: bool = False) -> None:
        """Called by a strategy's ``__init__``: where prefixes come from, and what is descended after them.

        ``encodes_twice``: the rows of the source, one a sentence, have an encoder pass of their own, with other
        dropout than the gold rows beside them.
        """
        self.source, self.objective, self.encodes_twice = source, objective, encodes_twice
        self.regularisation = Regularisation(cfg, self.symbols)
        self.mle_weight = check_ratio("--mle-weight", cfg.mle_weight)
        if self.mle_weight == 1:
            raise UserError(
                "--mle-weight is 1, which leaves nothing to model-generated prefixes: use --criterion gift_standard"
            )

    @classmethod
    def build_criterion(cls, cfg, task):
        """As fairseq makes it; an option that has no meaning ends the program with one sentence."""
        with one_sentence():
            return super().build_criterion(cfg, task)

    # ---- the number of the update

    def set_num_updates(self, num_updates: int) -> None:
        """Called by the ``gift_translation`` task before every training step; 0 is the first update."""
        self._update_num = num_updates

    def update_num(self) -> int:
        """The number of the running update. Where no task hands it on, the criterion counts updates itself.

        It then follows the ``num_updates`` that fairseq's trainer logs after every update and after a resume, which
        is the same on all workers and for all micro-batches of one update.
        """
        if self._update_num is not None:
            return self._update_num
        if not self._said_who_counts:
            self._said_who_counts = True
            logger.info("updates are counted by the criterion: the task does not hand on the update number")
        for meters in fairseq_metrics.get_active_aggregators():
            if "num_updates" in meters:
                return int(meters["num_updates"].val)
        return 0

    # ---- the forward pass

    @one_sentence()
    def forward(self, model, sample, reduce=True):
        """Loss (nats), its denominator and what to log, as fairseq's criterions return them.

        ``reduce`` is fairseq's: False leaves the losses of gold inputs apart, a token each.
        """
        check_autoregressive(model)
        if model.training:
            check_one_softmax(model.decoder)
        sample_size = sample["target"].size(0) if self.sentence_avg else sample["ntokens"]
        if not model.training:
            terms = self._after_gold(model, sample, self.gold_targets, reduce)
        elif self.source is None or not self.source.due(self.update_num()):
            objective = self.objective if self.source is None else self.gold_targets
            terms = self._after_gold(model, sample, objective, reduce)
            gold_nll = terms.nll.detach().sum()
            terms.log.update(n_replaced=0, gold_nll_loss=gold_nll, gold_ntokens=sample["ntokens"])
        else:
            terms = self._after_generated(model, sample, sample_size)
        if terms.less_size is not None:
            sample_size = sample_size - terms.less_size
        log = dict(
            terms.log,
            loss=(terms.loss if terms.shown is None else terms.shown).detach(),
            nll_loss=terms.nll.detach(),
            ntokens=sample["ntokens"],
            nsentences=sample["target"].size(0),
            sample_size=sample_size,
        )
        if model.training:
            log.setdefault("n_inputs", sample["ntokens"])
            log.update(n_readings=1, mem_in_use=metrics.memory_in_use())
        return terms.loss, sample_size, log

    def _after_gold(self, model, sample, objective: GoldTargets, reduce: bool) -> Terms:
        """The terms of the predictions after gold prefixes."""
        lprobs = model.get_normalized_probs(model(**sample["net_input"]), log_probs=True)
        own = self.own(sample) if model.training else None
        prefixes = Prefixes(sample["net_input"]["prev_output_tokens"], sample["target"], None, {}, own)
        return objective(lprobs, prefixes, None, sample["target"], reduce)

    def own(self, sample) -> Optional[Tensor]:
        """Which sentences (B,) of a training batch have a hypothesis of the model's for gold; None: not told apart."""
        return None

    def _after_generated(self, model, sample, sample_size: int) -> Terms:
        """The terms of the predictions after the source's prefixes, mixed with those after gold ones."""
        target = sample["target"]
        needs_gold = self.mle_weight > 0 or self.objective.needs_gold or self.regularisation.needs_gold
        prefixes, lprobs, gold_lprobs, log = self._predictions(model, sample, needs_gold)
        loss, nll, objective_log, shown, _ = self.objective(lprobs, prefixes, gold_lprobs, target)
        log.update(objective_log)
        others = torch.zeros_like(loss)
        if needs_gold:
            ignored = self.symbols.ignored
            gold_loss, gold_nll = self.gold_targets.losses(gold_lprobs[:, ignored:], target[:, ignored:])
            if self.mle_weight > 0:
                others = others + self.mle_weight * gold_loss
            log.update(gold_nll_loss=gold_nll.detach(), gold_ntokens=sample["ntokens"])
        if self.regularisation.weight > 0:
            distance = self.regularisation.distance(model, sample, gold_lprobs, sample_size)
            others = others + self.regularisation.weight * distance
            log.update(anchor=distance.detach(), anchor_size=sample_size)
        shown = (1 - self.mle_weight) * (loss if shown is None else shown) + others
        return Terms((1 - self.mle_weight) * loss + others, nll, log, shown)

    def _predictions(self, model, sample, with_gold: bool) -> Tuple[Prefixes, Tensor, Optional[Tensor], Dict[str, Any]]:
        """Prefixes, log-probabilities (R, L, V) after them, and if ``with_gold`` (B, T, V) after gold ones.

        One forward of the wrapped model: its decoder reads the rows of both below each other, and so does its encoder
        if it :attr:`encodes_twice`.
        """
        target, net_input = sample["target"], sample["net_input"]
        everyone = torch.arange(len(target), device=target.device)
        own_rows, gold_rows = everyone, everyone  # of the encoder's output
        if self.encodes_twice:  # a sentence beside itself: some encoders want the longest first
            twice = {key: net_input[key].repeat_interleave(2, dim=0) for key in ("src_tokens", "src_lengths")}
            net_input, own_rows, gold_rows = {**net_input, **twice}, 2 * everyone, 2 * everyone + 1
        prefixes: Optional[Prefixes] = None
        log: Dict[str, Any] = {}

        def generated_inputs(gold_inputs: Tensor, encoder_out: Any, extra: Dict[str, Any]) -> Tuple[Tensor, Any]:
            nonlocal prefixes
            start = metrics.now(gold_inputs.device)
            own = encoder_rows(model, encoder_out, own_rows) if self.encodes_twice else encoder_out
            prefixes = self.source.read(Decoding(model, sample, gold_inputs, own, extra, self.update_num()))
            log.update(prefixes.log, rollout_seconds=metrics.now(gold_inputs.device) - start)
            inputs, sentences = prefixes.inputs, prefixes.sentences
            if with_gold:
                inputs = tensors.stack(inputs, gold_inputs, self.symbols.pad)
                sentences = torch.cat([own_rows if sentences is None else own_rows[sentences], gold_rows])
            if sentences is not None:
                encoder_out = encoder_rows(model, encoder_out, sentences)
            return inputs, encoder_out

        with decoder_reads(model.decoder, generated_inputs):
            net_output = model(**net_input)
        lprobs, gold_lprobs = model.get_normalized_probs(net_output, log_probs=True), None
        rows, length = prefixes.inputs.shape
        if with_gold:  # split: the gradients of two slices would each be as large as both
            lprobs, gold_lprobs = lprobs.split([rows, len(target)])
            gold_lprobs = gold_lprobs[:, : target.size(1)]
        return prefixes, lprobs[:, :length], gold_lprobs, log

    # ---- what is logged

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        """Logs ratios of sums over all micro-batches and workers: what one big batch would have logged."""
        super().reduce_metrics(logging_outputs)
        metrics.reduce(logging_outputs)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True
