"""Print the folder of the plugin, for fairseq's --user-dir from any folder."""

import argparse
from typing import List

from gift_fairseq.training.launch import PLUGIN


def add_options(parser: argparse.ArgumentParser) -> None:
    pass


def run(options: argparse.Namespace, flags: List[str]) -> None:
    print(PLUGIN)
