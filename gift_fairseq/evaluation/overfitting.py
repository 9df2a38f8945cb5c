"""Overfitting, measured: how much better a model predicts the text that it trains on than the validation text.

A model that overfits little is limited by its capacity, and dropout takes away from that. Fine-tuning without dropout
is the last step of annealed dropout (Rennie et al. 2014, Annealed Dropout Training of Deep Networks), where dropout
falls to 0 over the whole training. A model that overfits needs its dropout.
"""

from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np
import torch
from fairseq import checkpoint_utils
from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss
from fairseq.data import LanguagePairDataset
from torch import nn

from gift_fairseq.data.binarized import split_is_read, task_of
from gift_fairseq.errors import UserError
from gift_fairseq.io import quiet
from gift_fairseq.substitution import check_autoregressive

SENTENCES = 1000  # of each text, taken at random, always the same
BATCH = 20  # sentences: the log-probabilities of long ones are large


class Overfitting(NamedTuple):
    train: float  # NLL, nats a token
    valid: float

    @property
    def gap(self) -> float:
        return self.valid - self.train


def nll(model: nn.Module, dataset: LanguagePairDataset) -> float:
    """Negative log-likelihood of gold tokens after gold prefixes, nats a token, of :data:`SENTENCES` of ``dataset``.

    Sentences longer than the model reads are left out. NaN if there are no others.
    """
    order, _ = dataset.filter_indices_by_size(np.arange(len(dataset)), model.max_positions())
    taken = np.random.RandomState(1).permutation(order)[:SENTENCES]
    taken = taken[np.argsort(dataset.tgt_sizes[taken], kind="stable")]
    total, tokens, pad = 0.0, 0, dataset.tgt_dict.pad()
    with torch.no_grad():
        for batch in dataset.batch_by_size(taken, max_sentences=BATCH):
            sample = dataset.collater([dataset[int(i)] for i in batch])
            lprobs = model.get_normalized_probs(model(**sample["net_input"]), log_probs=True)
            target = sample["target"].unsqueeze(2)
            total += float(label_smoothed_nll_loss(lprobs, target, 0.0, ignore_index=pad)[1])
            tokens += sample["ntokens"]
    return total / tokens if tokens else float("nan")


def measure(checkpoint: Path, data: Path) -> Optional[Overfitting]:
    """Of the model of ``checkpoint``, in evaluation mode, on the CPU; None without a sentence to validate on.

    :class:`UserError` if the model is no autoregressive encoder-decoder.
    """
    with quiet():
        task = task_of(data)
        try:
            with split_is_read("--data", str(data), "valid"):
                task.load_dataset("valid")
        except UserError:
            return None
        (model,), _ = checkpoint_utils.load_model_ensemble([str(checkpoint)], task=task)
        check_autoregressive(model)
        model.eval()
        return Overfitting(*(nll(model, task.dataset(split)) for split in ("train", "valid")))
