"""The strategies: one registered criterion a file."""

from gift_fairseq.criterions import auxiliary, generative, recurrent, risk, standard, weighted  # noqa: F401
