"""The strategies: one registered criterion a file."""

from gift_fairseq.criterions import auxiliary, consistency, generative, recurrent, risk, standard, weighted  # noqa: F401
