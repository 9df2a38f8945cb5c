"""generative: a share of the updates trains on free-running generation."""

from dataclasses import dataclass, field

from fairseq.criterions import register_criterion
from torch import Tensor

from gift_fairseq import prefixes, rollout
from gift_fairseq.criterions.base import GiftCriterion, RolloutConfig
from gift_fairseq.options import check_ratio
from gift_fairseq.schedules import falls_on_update


@dataclass
class GenerativeConfig(RolloutConfig):
    generate_ratio: float = field(
        default=0.1,
        metadata={
            "help": "share of the optimizer updates that train on the decoder's own free-running output, a ratio from "
            "0 (off) to 1 (every update); 0.1 is every tenth; default: 0.1"
        },
    )
    rollout_cuda_graphs: bool = field(
        default=False,
        metadata={
            "help": "on CUDA, capture the steps of fairseq's Transformer as graphs and replay them; default: off, as "
            "no GPU has run it yet"
        },
    )


@register_criterion("gift_generative", dataclass=GenerativeConfig)
class GenerativeCriterion(GiftCriterion):
    """``sum l(z)`` on the chosen updates, ``sum l(x)`` on the others; z is what the decoder generates itself.

    Generation is greedy, from the start symbol to the gold length, cached and without gradient or decoder dropout; one
    parallel pass over the generated inputs then gives loss and gradient. The argmax passes no gradient, so without
    dropout this equals back-propagation through the step-by-step generation, to rounding.
    """

    def __init__(
        self,
        task,
        sentence_avg,
        label_smoothing,
        ignore_prefix_size=0,
        report_accuracy=False,
        generate_ratio=0.1,
        rollout_dtype="model",
        rollout_cuda_graphs=False,
    ):
        super().__init__(task, sentence_avg, label_smoothing, ignore_prefix_size, report_accuracy)
        self.generate_ratio = check_ratio("--generate-ratio", generate_ratio)
        self.rollout_dtype = rollout.dtype_named(rollout_dtype)
        self.rollout_cuda_graphs = rollout_cuda_graphs

    def reads_gold(self) -> bool:
        return not falls_on_update(self.update_num(), self.generate_ratio)

    def decoder_inputs(self, decoder, gold_inputs, encoder_out, extra, target, log) -> Tensor:
        predictions = rollout.free_running(
            decoder,
            gold_inputs,
            encoder_out,
            self.forbidden,
            self.padding_idx,
            self.ignore_prefix_size,
            self.rollout_dtype,
            self.rollout_cuda_graphs,
        )
        mask = prefixes.replaceable(gold_inputs, self.padding_idx, self.ignore_prefix_size)
        return self.replace_inputs(gold_inputs, predictions, mask, log)
