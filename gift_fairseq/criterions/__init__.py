"""The strategies: one registered criterion a file."""

from gift_fairseq.criterions import (  # noqa: F401
    auxiliary,
    consistency,
    distillation,
    generative,
    recurrent,
    risk,
    standard,
    weighted,
)
