"""What fairseq's log of a training says, as numbers: losses, times, memory, by epoch and by update."""

import json
import math
from typing import Dict, List, Optional

from gift_fairseq.runs import RunFolder, checkpoint_file

Numbers = Dict[str, float]


class Log:
    """fairseq's JSON log. ``train`` has an entry for every epoch, whole or begun; ``valid`` and ``inner`` (of
    --log-interval) for every update at which they were written; each in order, the last where there are several.
    ``metric`` of the validation chose ``checkpoint_best.pt``, by its highest value if ``maximize``."""

    def __init__(self, text: str, metric: str = "loss", maximize: bool = False):
        self.metric, self.maximize = metric, maximize
        self.finished = "done training" in text
        found: Dict[str, Dict[float, Numbers]] = {"train": {}, "valid": {}, "inner": {}}
        for line in text.split("\n"):
            entry = self._numbers(line)
            if "train_num_updates" in entry and "epoch" in entry:
                found["train"][entry["epoch"]] = entry
            elif "valid_num_updates" in entry:
                found["valid"][entry["valid_num_updates"]] = entry
            elif "num_updates" in entry:
                found["inner"][entry["num_updates"]] = entry
        self.train, self.valid, self.inner = ([entries[key] for key in sorted(entries)] for entries in found.values())
        trained = [epoch["train_num_updates"] for epoch in self.train]
        self.updates = int(max([0, *trained, *found["valid"], *found["inner"]]))

    @classmethod
    def of(cls, run: RunFolder) -> "Log":
        text = run.log_file.read_text(encoding="utf-8", errors="replace") if run.log_file.is_file() else ""
        flags = run.record().get("fairseq", {})
        maximize = flags.get("maximize_best_checkpoint_metric", False)
        return cls(text, flags.get("best_checkpoint_metric", "loss"), maximize)

    @staticmethod
    def _numbers(line: str) -> Numbers:
        if not line.startswith('{"epoch"'):
            return {}
        found = {}
        try:
            for key, value in json.loads(line).items():
                if value is not None and math.isfinite(float(value)):
                    found[key] = float(value)
        except (ValueError, TypeError):  # a line that is being written, or of another program
            return {}
        return found

    def epoch_updates(self) -> List[float]:
        """The updates made in each epoch."""
        ends = [0.0] + [epoch["train_num_updates"] for epoch in self.train]
        return [end - start for start, end in zip(ends, ends[1:])]

    def mean(self, key: str) -> Optional[float]:
        """``key`` of the epochs, weighted by their updates; None if one lacks it."""
        if not self.train or any(key not in epoch for epoch in self.train):
            return None
        weights = self.epoch_updates()
        return sum(n * epoch[key] for n, epoch in zip(weights, self.train)) / sum(weights)

    def gold_nll(self, checkpoint: str) -> Optional[float]:
        """NLL on gold prefixes of the validation set, nats a token, of the checkpoint FILE.pt; None if not logged."""
        known, best_by = [one for one in self.valid if "valid_nll_loss" in one], f"valid_{self.metric}"
        if checkpoint == checkpoint_file("best"):
            known = [one for one in known if best_by in one]
            known.sort(key=lambda one: one[best_by], reverse=not self.maximize)  # of equal ones fairseq keeps the last
        elif checkpoint != checkpoint_file("last"):
            return None
        return known[-1]["valid_nll_loss"] * math.log(2) if known else None  # logged in bits
