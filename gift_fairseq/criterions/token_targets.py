"""What token is right behind an own prefix: the gold one of the position, or what the edit-distance oracle says."""

from dataclasses import dataclass, field
from typing import Tuple

from torch import Tensor

from gift_fairseq import rollout
from gift_fairseq.criterions.own_prefixes import OwnPrefixConfig, OwnPrefixCriterion, Reading, refuse_drawing
from gift_fairseq.evaluation import oracle
from gift_fairseq.options import UserError, check_choice

TARGETS = ("gold", "oracle")
WEIGHTS = ("uniform", "model")
CHOICES = ("argmax", "sample")


@dataclass
class TokenTargetsConfig(OwnPrefixConfig):
    choose: str = field(
        default="argmax",
        metadata={
            "help": "how the tokens are chosen that are read: argmax, or sample (drawn from the softmax; Gumbel-argmax "
            "is the same); default: argmax"
        },
    )
    targets: str = field(
        default="gold",
        metadata={
            "help": "what is right behind an own prefix: gold (the gold token of the same position) or oracle (all "
            "tokens from which the best edit distance is still in reach); default: gold"
        },
    )
    oracle_weights: str = field(
        default="uniform",
        metadata={
            "help": "how the tokens of the oracle share the target: uniform, or model (by the model's own "
            "probabilities: the loss is the log of what they have together); default: uniform"
        },
    )


class TokenTargetsCriterion(OwnPrefixCriterion):
    """Label-smoothed cross-entropy behind own prefixes.

    ``--targets gold``: of ``y[b, t]``, whatever the prefix. ``--targets oracle``: optimal completion distillation
    (Sabour et al. 2019, Optimal Completion Distillation for Sequence Learning, with temperature 0):
    ``- sum_v q(v) log p(v)``, q uniform over the tokens that keep the best edit distance in reach (see
    :mod:`gift_fairseq.evaluation.oracle`); behind a gold prefix the same as gold. Where we differ: label smoothing, and
    ``--oracle-weights model``, q in proportion to p (without gradient), whose gradient is that of the negative log of
    the probability of the whole set.
    """

    def __init__(self, cfg, task):
        super().__init__(cfg, task)
        self.targets = check_choice("--targets", cfg.targets, TARGETS)
        self.oracle_weights = check_choice("--oracle-weights", cfg.oracle_weights, WEIGHTS)
        if self.targets == "gold" and self.oracle_weights != "uniform":
            raise UserError(f"--oracle-weights is {self.oracle_weights}, but there is no oracle: add --targets oracle")
        self.samples = check_choice("--choose", cfg.choose, CHOICES) == "sample"
        if not self.samples:
            refuse_drawing(cfg, "nothing is drawn: add --choose sample")

    def choice(self, device, forbidden) -> rollout.Choice:
        """How the tokens of one rollout are chosen."""
        if not self.samples:
            return rollout.Choice(forbidden)
        return rollout.random_choice(self.sampling._replace(forbidden=forbidden), device)

    def own_terms(self, lprobs, reading: Reading, gold_lprobs, target, log) -> Tuple[Tensor, Tensor]:
        lprobs, tokens = self.scored(lprobs, reading.tokens)
        if self.targets == "gold":
            self._log_accuracy(lprobs.detach(), tokens, log)
            return self.plain_loss_terms(lprobs, tokens, reduce=True)
        optimal = oracle.optimal_next(reading.inputs, target, self.padding_idx)[:, self.ignore_prefix_size :]
        self._log_oracle(lprobs.detach(), optimal, target, tokens, log)
        return self.oracle_terms(lprobs, optimal, target, tokens.ne(self.padding_idx))

    def oracle_terms(self, lprobs: Tensor, optimal: Tensor, references: Tensor, trained: Tensor):
        """Label-smoothed loss and negative log of the right tokens' probability, nats, summed where ``trained`` (B, L).

        ``lprobs`` (B, L, V); ``optimal`` (B, L, T) marks the right ones among ``references`` (B, T).
        """
        nll = -oracle.log_mass(optimal, references, lprobs)
        loss = nll
        if self.oracle_weights == "uniform":
            each = lprobs.gather(2, references.unsqueeze(1).expand(optimal.shape))
            loss = -each.masked_fill(~optimal, 0).sum(2) / optimal.sum(2)
        smoothing = self.eps / (lprobs.size(-1) - 1)
        loss = (1 - self.eps - smoothing) * loss - smoothing * lprobs.sum(-1)
        return loss.masked_fill(~trained, 0).sum(), nll.masked_fill(~trained, 0).sum()

    def _log_oracle(self, lprobs, optimal, references, tokens, log) -> None:
        """As the accuracies of the others, with any right token for the gold one."""
        scored = tokens.ne(self.padding_idx)
        right = oracle.contains(optimal, references, lprobs.argmax(-1)) & scored
        log.update(n_first=scored[:, :1].sum(), n_first_right=right[:, :1].sum())
        log.update(n_right_tokens=optimal.sum(2).masked_fill(~scored, 0).sum(), n_oracle=scored.sum())
        if self.report_accuracy:
            log.update(total=scored.sum(), n_correct=right.sum())
