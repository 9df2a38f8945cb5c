"""generative: a share of the updates trains on free-running generation."""

from dataclasses import dataclass, field

from fairseq.criterions import register_criterion

from gift_fairseq import prefixes, rollout
from gift_fairseq.criterions.free_running import FreeRunning, FreeRunningConfig
from gift_fairseq.criterions.own_prefixes import Reading
from gift_fairseq.criterions.token_targets import TokenTargetsConfig, TokenTargetsCriterion
from gift_fairseq.options import UserError


@dataclass
class GenerativeConfig(FreeRunningConfig, TokenTargetsConfig):
    rollout_cuda_graphs: bool = field(
        default=False,
        metadata={
            "help": "on CUDA, capture the steps of fairseq's Transformer as graphs and replay them; default: off, as "
            "no GPU has run it yet"
        },
    )


@register_criterion("gift_generative", dataclass=GenerativeConfig)
class GenerativeCriterion(FreeRunning, TokenTargetsCriterion):
    """``sum l(z)`` on the chosen updates, ``sum l(x)`` on the others; z is what the decoder generates itself.

    Generation goes from the start symbol to the gold length, greedily unless ``--choose`` says otherwise, cached and
    without gradient or decoder dropout; one parallel pass over the generated inputs then gives loss and gradient. The
    argmax passes no gradient, so without dropout this equals back-propagation through the step-by-step generation, to
    rounding.

    With ``--targets oracle`` the length is the model's own: ``</s>`` may be chosen, and the loss is taken up to and
    including the step where the row ends, or is cut at ``--length-cap``.
    """

    def __init__(self, cfg, task):
        super().__init__(cfg, task)
        self.rollout_cuda_graphs = cfg.rollout_cuda_graphs
        if self.rollout_cuda_graphs and (self.samples or self.targets == "oracle"):
            raise UserError(
                "--rollout-cuda-graphs is given, but graphs repeat an argmax to a known length: leave out --choose "
                "sample and --targets oracle"
            )
        if self.targets == "gold" and cfg.length_cap != GenerativeConfig.length_cap:
            raise UserError(f"--length-cap is {cfg.length_cap}, but outputs have the gold length: add --targets oracle")

    def reading(self, model, sample, gold_inputs, encoder_out, extra, log) -> Reading:
        target = sample["target"]
        if self.targets == "oracle":
            return self._own_length(model.decoder, gold_inputs, encoder_out, target, log)
        predictions = rollout.free_running(
            model.decoder,
            gold_inputs,
            encoder_out,
            self.choice(gold_inputs.device, self.forbidden),
            self.padding_idx,
            self.ignore_prefix_size,
            self.rollout_dtype,
            self.rollout_cuda_graphs,
        )
        mask = prefixes.replaceable(gold_inputs, self.padding_idx, self.ignore_prefix_size)
        return Reading(self.replace_inputs(gold_inputs, predictions, mask, log), target)

    def _own_length(self, decoder, gold_inputs, encoder_out, target, log) -> Reading:
        choose = self.choice(gold_inputs.device, self.forbidden_but_end)
        tokens = self.to_its_end(decoder, gold_inputs, encoder_out, choose, self.longest(target, decoder))
        return self.reading_of(tokens, gold_inputs, log)
