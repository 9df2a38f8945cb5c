"""Files written whole: a temporary name beside the final one, then a rename."""

import os


def write_whole(path: str, text: str) -> None:
    """``text`` as the UTF-8 file ``path``; whoever reads it finds the old file or the new one, never a part."""
    partial = f"{path}.partial"
    with open(partial, "w", encoding="utf-8", newline="\n") as out:
        out.write(text)
    os.replace(partial, path)
