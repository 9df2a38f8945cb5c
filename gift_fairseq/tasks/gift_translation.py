"""fairseq's translation task, plus what fine-tuning for generation needs of it."""

from dataclasses import dataclass, field
from typing import Optional

import torch
from fairseq.logging import metrics
from fairseq.models import ARCH_MODEL_REGISTRY, FairseqLanguageModel
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from fairseq.utils import split_paths
from omegaconf import II

from gift_fairseq import finetune_flags, rollout
from gift_fairseq.checkpoints import check_checkpoint
from gift_fairseq.options import UserError
from gift_fairseq.prefixes import forbidden_ids, replace, replaceable
from gift_fairseq.substitution import check_model, decoder_reads


@dataclass
class GiftTranslationConfig(TranslationConfig):
    eval_free_running: bool = field(
        default=False,
        metadata={
            "help": "in validation, also report the share of target positions predicted right when the decoder reads "
            "its own output (free_running_accuracy, %%) beside the share when it reads the reference "
            "(teacher_forced_accuracy, %%)"
        },
    )
    # read, not offered: what is checked before a run starts
    path: Optional[str] = II("common_eval.path")
    restore_file: str = II("checkpoint.restore_file")
    finetune_from_model: Optional[str] = II("checkpoint.finetune_from_model")
    # a language model's options ask them of their task; without, fairseq would stop before build_model can say why
    tokens_per_sample: Optional[int] = II("dataset.max_tokens")
    add_bos_token: bool = II("task.eval_free_running")


@register_task("gift_translation", dataclass=GiftTranslationConfig)
class GiftTranslationTask(TranslationTask):
    """Hands the update number to the criterion, validates the free-running model, refuses what cannot work."""

    cfg: GiftTranslationConfig

    @classmethod
    def setup_task(cls, cfg: GiftTranslationConfig, from_checkpoint: bool = False, **kwargs):
        """As the parent's; :class:`UserError` if the data or a checkpoint that the options name is not usable."""
        try:
            task = super().setup_task(cfg, **kwargs)
        except FileNotFoundError as error:
            raise UserError(f"the data folder is {cfg.data}, but {error.filename} is missing") from None
        if not from_checkpoint:  # a checkpoint's own options name files of long ago
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

    def load_dataset(self, split, epoch=1, combine=False, **kwargs):
        """As the parent's; :class:`UserError` if the split is missing or has no sentence."""
        try:
            super().load_dataset(split, epoch, combine, **kwargs)
        except FileNotFoundError:
            raise UserError(f"the data folder {self.cfg.data} has no split '{split}'") from None
        except ValueError as error:
            if "empty file" not in str(error):
                raise
            raise UserError(f"split '{split}' in {self.cfg.data} is empty") from None

    def build_model(self, cfg, from_checkpoint=False):
        """As the parent's; :class:`UserError` if the strategies cannot work with such a model."""
        arch = getattr(cfg, "arch", None) or getattr(cfg, "_name", None)
        if issubclass(ARCH_MODEL_REGISTRY.get(arch, object), FairseqLanguageModel):  # building one here would fail
            raise UserError(f"--arch is {arch}, which has only a decoder: use an autoregressive encoder-decoder")
        model = super().build_model(cfg, from_checkpoint)
        check_model(model)
        if self.cfg.finetune_from_model and not from_checkpoint:
            finetune_flags.check_model("--finetune-from-model", self.cfg.finetune_from_model, model, cfg)
        return model

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        if hasattr(criterion, "set_num_updates"):
            criterion.set_num_updates(update_num)
        return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)

    def valid_step(self, sample, model, criterion):
        loss, sample_size, log = super().valid_step(sample, model, criterion)
        if self.cfg.eval_free_running:
            target = sample["target"]
            scored = target.ne(self.target_dictionary.pad())
            with torch.no_grad():
                teacher_forced = model(**sample["net_input"])
                with decoder_reads(model.decoder, self._own_inputs(model.decoder, criterion)):
                    free_running = model(**sample["net_input"])
            for name, output in (("teacher_forced", teacher_forced), ("free_running", free_running)):
                predicted = rollout.scores_of(model.decoder, output).argmax(-1)
                log[f"n_{name}_right"] = (predicted.eq(target) & scored).sum()
            log["n_scored"] = scored.sum()
        return loss, sample_size, log

    def _own_inputs(self, decoder, criterion):
        padding_idx, choose = self.target_dictionary.pad(), rollout.Choice(forbidden_ids(self.target_dictionary))
        prefix_size = getattr(criterion, "ignore_prefix_size", 0)

        def choose_inputs(gold_inputs, encoder_out, _extra):
            predictions = rollout.free_running(decoder, gold_inputs, encoder_out, choose, padding_idx, prefix_size)
            mask = replaceable(gold_inputs, padding_idx, prefix_size)
            return replace(gold_inputs, predictions, mask), encoder_out

        return choose_inputs

    def reduce_metrics(self, logging_outputs, criterion):
        super().reduce_metrics(logging_outputs, criterion)
        scored = float(sum(log.get("n_scored", 0) for log in logging_outputs))
        if scored > 0:
            for name in ("teacher_forced", "free_running"):
                right = float(sum(log[f"n_{name}_right"] for log in logging_outputs))
                metrics.log_scalar(f"{name}_accuracy", 100.0 * right / scored, scored, round=2)
