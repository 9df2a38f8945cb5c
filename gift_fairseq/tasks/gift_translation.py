"""fairseq's translation task, plus what fine-tuning for generation needs of it."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, FrozenSet, List, Optional, Tuple

import torch
from fairseq.models import ARCH_MODEL_REGISTRY, FairseqLanguageModel
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from fairseq.utils import split_paths
from omegaconf import II
from torch import Tensor, distributed, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gift_fairseq import bf16, metrics, rollout  # noqa: F401  bf16 mends a flag of fairseq
from gift_fairseq.checkpoints import average
from gift_fairseq.checkpoints import flags as finetune_flags
from gift_fairseq.checkpoints.files import check_checkpoint, write_checkpoint
from gift_fairseq.data.binarized import split_is_read
from gift_fairseq.errors import UserError, check_at_least, one_sentence
from gift_fairseq.objectives import oracle
from gift_fairseq.prefixes import tensors
from gift_fairseq.prefixes.free_running import until_eos
from gift_fairseq.prefixes.source import Symbols
from gift_fairseq.substitution import check_autoregressive, decoder_reads

for name, meaning in (
    ("teacher_forced", "validation: share of gold tokens predicted after gold prefixes, %"),
    ("free_running", "validation: share of oracle-optimal tokens in greedy hypotheses, %"),
):
    metrics.ratio(f"{name}_accuracy", f"n_{name}_right", f"n_{name}", meaning, 100.0)


@dataclass
class GiftTranslationConfig(TranslationConfig):
    eval_free_running: bool = field(
        default=False,
        metadata={
            "help": "in validation, also report the share of oracle-optimal tokens in the decoder's own greedy output "
            "(free_running_accuracy, %%; right is what keeps the achievable edit distance to the reference) beside "
            "the share when it reads the reference (teacher_forced_accuracy, %%); default: off"
        },
    )
    snapshots: int = field(
        default=0,
        metadata={
            "help": "keep the model N times, evenly over the second half of --max-update, for gift average: "
            "SAVE_DIR/snapshot_UPDATES.pt, and the last as checkpoint_last.pt; 0 or more; default: 0"
        },
    )
    cpu_bf16: bool = field(
        default=False,
        metadata={
            "help": "compute the training pass in torch's CPU autocast to bfloat16; weights, softmax and loss stay in "
            "float32; it pays on processors that multiply bfloat16 (AVX512-BF16, AMX); default: off"
        },
    )
    save_dir: str = II("checkpoint.save_dir")
    max_update: int = II("optimization.max_update")
    # read, not offered: what is checked before a run starts
    path: Optional[str] = II("common_eval.path")
    restore_file: str = II("checkpoint.restore_file")
    finetune_from_model: Optional[str] = II("checkpoint.finetune_from_model")
    # a language model's options ask them of their task; without, fairseq would stop before build_model can say why
    tokens_per_sample: Optional[int] = II("dataset.max_tokens")
    add_bos_token: bool = II("task.eval_free_running")


@register_task("gift_translation", dataclass=GiftTranslationConfig)
class GiftTranslationTask(TranslationTask):
    """Hands on the update number, keeps models to average, validates the free-running one, refuses what cannot work."""

    cfg: GiftTranslationConfig
    snapshots_due: FrozenSet[int] = frozenset()  # update numbers

    @classmethod
    @one_sentence()
    def setup_task(cls, cfg: GiftTranslationConfig, from_checkpoint: bool = False, **kwargs):
        """As the parent's; one sentence if the data or a checkpoint that the options name is not usable."""
        try:
            task = super().setup_task(cfg, **kwargs)
        except FileNotFoundError as error:
            raise UserError(f"the data folder is {cfg.data}, but {error.filename} is missing") from None
        if not from_checkpoint:  # a checkpoint's own options name files of long ago
            if check_at_least("--snapshots", cfg.snapshots, 0) and not cfg.max_update:
                raise UserError(f"--snapshots is {cfg.snapshots}, but needs --max-update, over which they spread")
            task.snapshots_due = frozenset(average.second_half(cfg.max_update, cfg.snapshots)[:-1])
            if cfg.finetune_from_model:
                task._check_checkpoint("--finetune-from-model", cfg.finetune_from_model)
            if cfg.restore_file != "checkpoint_last.pt":
                task._check_checkpoint("--restore-file", cfg.restore_file)
            for path in split_paths(cfg.path or ""):
                if path:
                    task._check_checkpoint("--path", path)
        return task

    def _check_checkpoint(self, option: str, path: str) -> None:
        check_checkpoint(option, path, self.source_dictionary, self.target_dictionary)

    @one_sentence()
    def load_dataset(self, split, epoch=1, combine=False, **kwargs):
        """As the parent's; one sentence if the split is missing or has no sentence."""
        with split_is_read("the data folder", self.cfg.data, split):
            super().load_dataset(split, epoch, combine, **kwargs)

    @one_sentence()
    def build_model(self, cfg, from_checkpoint=False):
        """As the parent's; one sentence if the strategies cannot work with it, or it is not the checkpoint's model."""
        arch = getattr(cfg, "arch", None) or getattr(cfg, "_name", None)
        if issubclass(ARCH_MODEL_REGISTRY.get(arch, object), FairseqLanguageModel):  # building one here would fail
            raise UserError(f"--arch is {arch}, which has only a decoder: use an autoregressive encoder-decoder")
        model = super().build_model(cfg, from_checkpoint)
        check_autoregressive(model)
        if self.cfg.finetune_from_model and not from_checkpoint:
            finetune_flags.check_model("--finetune-from-model", self.cfg.finetune_from_model, model, cfg)
        return model

    @one_sentence()
    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        if hasattr(criterion, "set_num_updates"):
            criterion.set_num_updates(update_num)
        if update_num in self.snapshots_due:
            self.snapshots_due -= {update_num}  # once, of all the micro-batches of the update to come
            if not distributed.is_initialized() or distributed.get_rank() == 0:
                path = average.snapshot_file(Path(self.cfg.save_dir), update_num)
                write_checkpoint({"model": model.state_dict()}, str(path))
        if self.cfg.cpu_bf16 and sample["target"].device.type != "cpu":
            raise UserError("--cpu-bf16 is given, but the model trains on a GPU: add --cpu, or give --bf16 instead")
        loss = in_cpu_bf16(criterion) if self.cfg.cpu_bf16 else criterion
        return super().train_step(sample, model, loss, optimizer, update_num, ignore_grad)

    def valid_step(self, sample, model, criterion):
        """As the parent's; with ``--eval-free-running`` logs how many tokens there are and how many are right.

        The criterion's own pass over gold inputs gives the teacher-forced ones. The rollout is made inside it, from
        the encoder output that it has anyway.
        """
        if not self.cfg.eval_free_running:
            return super().valid_step(sample, model, criterion)
        target = sample["target"]
        symbols = Symbols.of(self.target_dictionary, getattr(criterion, "ignore_prefix_size", 0))
        predicted: List[Tensor] = []
        free_running: List[Tuple[Tensor, Tensor]] = []

        def roll_out(gold_inputs: Tensor, encoder_out: Any, _extra: Dict[str, Any]) -> Tuple[Tensor, Any]:
            tokens = _hypotheses(model.decoder, gold_inputs, encoder_out, target, symbols)
            inputs = tensors.after(gold_inputs[:, 0], tokens, symbols.pad)
            optimal = oracle.optimal_next(inputs, target, symbols.pad)
            free_running.append((tokens, oracle.contains(optimal, target, tokens)))
            return gold_inputs, encoder_out

        def keep_predictions(decoder: nn.Module, _inputs: Any, output: Any) -> None:
            predicted.append(rollout.scores_of(decoder, output).argmax(dim=-1))

        with decoder_reads(model.decoder, roll_out), model.decoder.register_forward_hook(keep_predictions):
            loss, sample_size, log = super().valid_step(sample, model, criterion)
        decoded = {"teacher_forced": (target, predicted[0].eq(target)), "free_running": free_running[0]}
        for name, (tokens, right) in decoded.items():
            scored = tokens.ne(symbols.pad)
            scored[:, : symbols.ignored] = False
            log.update({f"n_{name}": scored.sum(), f"n_{name}_right": (right & scored).sum()})
        return loss, sample_size, log

    def reduce_metrics(self, logging_outputs, criterion):
        super().reduce_metrics(logging_outputs, criterion)
        if not hasattr(criterion, "set_num_updates"):  # fairseq's own criterions log their own keys alone
            metrics.reduce_ratios(logging_outputs)


def in_cpu_bf16(criterion: nn.Module) -> Callable[[nn.Module, Dict[str, Any]], Any]:
    """``criterion``, computed in autocast, which the backward pass follows by itself.

    Attention is torch's plain one: the backward pass of the fused one is slow in bfloat16 on a CPU (torch 2.13).
    """

    def loss(model, sample):
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            return criterion(model, sample)

    return loss


def _hypotheses(decoder: nn.Module, gold_inputs: Tensor, encoder_out: Any, target: Tensor, symbols: Symbols) -> Tensor:
    """Greedy hypotheses (B, L), each until ``</s>``, or cut at twice the length of the reference and 10 tokens.

    They begin with the ignored prefix of ``gold_inputs`` (B, T). Like those of fairseq's generator, which the exposure
    measurement takes, none has ``</s>`` as its first token.
    """
    samplers = itertools.chain(
        [rollout.Sampler(symbols.forbidden)], itertools.repeat(rollout.Sampler(symbols.forbidden_but_eos))
    )
    longest = (2 * target.ne(symbols.pad).sum(dim=1) + 10).clamp(max=decoder.max_positions())
    return until_eos(decoder, gold_inputs, encoder_out, lambda scores, _rows: next(samplers)(scores), symbols, longest)
