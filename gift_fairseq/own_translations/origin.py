"""Where the own translations in a data folder come from, kept in that folder."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, Optional

from gift_fairseq.errors import UserError
from gift_fairseq.io import read_json, write_whole

FILE = "candidates.json"


@dataclass(frozen=True)
class Origin:
    data: str  # the data folder of the gold pairs
    checkpoint: str  # whose translations they are
    seconds: float  # what translating took, of all processes together
    gold_pairs: int  # so many of the training set, the first, are gold
    settings: Dict[str, Any]  # how many sentences were translated, how, and which translations were chosen

    def write(self, folder: Path) -> None:
        write_whole(str(folder / FILE), json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def of(cls, folder: Path) -> Optional["Origin"]:
        """None if there are no own translations in the data ``folder``; UserError if an earlier version made them."""
        found = read_json(folder / FILE)
        if found and found.keys() != cls.__dataclass_fields__.keys():
            raise UserError(f"{folder / FILE} was written by another version: run gift candidates again")
        return cls(**found) if found else None
