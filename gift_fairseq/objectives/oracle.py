"""Which next tokens are right after a prefix that may hold mistakes: the dynamic oracle of the edit distance.

After a gold prefix the next reference token is right. After any other, positions no longer line up. Optimal completion
distillation (Sabour, Chan and Norouzi 2019, Optimal Completion Distillation for Sequence Learning, section 3.2) asks
which tokens keep the best edit distance that is still achievable. Let ``d(t, j)`` be the Levenshtein distance
(insertion, deletion, substitution: 1 each) between the first t tokens of the hypothesis and the first j of the
reference. From there the rest of the reference can be appended at no further cost, so the best achievable distance is
``min_j d(t, j)``. The optimal next tokens are ``reference[j]`` for every j that attains it; ``</s>`` is optimal if the
full reference attains it. This is their dynamic programme, computed a row at a time for the whole batch.

Shapes: ``B`` sentences, ``T`` decoder positions, ``R`` reference tokens, padded on the right. ``inputs`` (B, T) is what
the decoder read: the start symbol, then the hypothesis, so that position t predicts what follows ``inputs[:, 1:t+1]``.
``references`` (B, R) end in ``</s>``. At positions after the end of a hypothesis the results mean nothing. All are
pure functions on any device, without a (B, T, V) tensor of their own; :func:`log_mass` passes gradients on.
"""

from dataclasses import dataclass, field
from typing import Optional, Sequence, Tuple

import torch
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterionConfig
from torch import Tensor

from gift_fairseq import metrics
from gift_fairseq.errors import UserError, check_choice
from gift_fairseq.objectives.gold import GoldTargets, accuracy_log
from gift_fairseq.objectives.objective import Objective, Terms
from gift_fairseq.prefixes.source import Prefixes, Symbols

metrics.ratio("right_tokens", "n_right_tokens", "n_oracle", "oracle-optimal tokens at a position, on average")


def prefix_distances(inputs: Tensor, references: Tensor) -> Tensor:
    """Edit distances (B, T, R) of what position t has read, without the start symbol, to the first j reference tokens.

    Columns j after the end of a reference mean nothing.
    """
    columns = torch.arange(references.size(1), device=references.device, dtype=torch.int32)
    row = columns.expand(references.shape)  # nothing read: the j tokens are missing
    rows = [row]
    for token in inputs[:, 1:].unbind(1):
        kept = row[:, :-1] + references[:, :-1].ne(token.unsqueeze(1))  # or substituted
        row = torch.cat([row[:, :1] + 1, torch.minimum(row[:, 1:] + 1, kept)], dim=1)
        # and missing reference tokens: d(j) = min over k <= j of row(k) + j - k
        row = (row - columns).cummin(dim=1).values + columns
        rows.append(row)
    return torch.stack(rows, dim=1)


def optimal_next(inputs: Tensor, references: Tensor, padding_idx: int) -> Tensor:
    """Mask (B, T, R), True where ``references[b, j]`` is a right next token at position t of sentence b.

    A token that is right at several j is marked at the first one only: sums over R count every token once. At least
    one is marked at every position, and just the gold one after a gold prefix.
    """
    padding = references.eq(padding_idx).unsqueeze(1)
    distances = prefix_distances(inputs, references).masked_fill(padding, torch.iinfo(torch.int32).max)
    optimal = distances.eq(distances.amin(dim=2, keepdim=True))
    same_later = references.unsqueeze(2).eq(references.unsqueeze(1)).triu(diagonal=1)  # (B, k, j)
    repeated = torch.bmm(optimal.float(), same_later.float()) > 0
    return optimal & ~repeated


def contains(optimal: Tensor, references: Tensor, tokens: Tensor) -> Tensor:
    """Whether ``tokens`` (B, T) are among the right ones, (B, T); ``optimal`` (B, T, R) is of :func:`optimal_next`."""
    return (optimal & references.unsqueeze(1).eq(tokens.unsqueeze(2))).any(dim=2)


def log_mass(optimal: Tensor, references: Tensor, log_probs: Tensor) -> Tensor:
    """Log of the probability (B, T) that ``log_probs`` (B, T, V) give to the oracle-optimal tokens together.

    After a gold prefix that is the log-probability of the gold token.
    """
    return of_optimal(optimal, references, log_probs).logsumexp(dim=2)


def of_optimal(optimal: Tensor, references: Tensor, log_probs: Tensor) -> Tensor:
    """What ``log_probs`` (B, T, V) are of the reference tokens (B, T, R), and minus infinity where not ``optimal``."""
    chosen = log_probs.gather(2, references.unsqueeze(1).expand(optimal.shape))
    return chosen.masked_fill(~optimal, float("-inf"))


def oracle_loss(
    lprobs: Tensor, optimal: Tensor, references: Tensor, scored: Tensor, smoothing: float, by_model: bool
) -> Tuple[Tensor, Tensor]:
    """Label-smoothed loss, and negative log of the probability of the oracle-optimal tokens; nats, summed.

    ``lprobs`` (B, T, V); ``optimal`` (B, T, R) marks the oracle-optimal tokens among ``references`` (B, R); the sum is
    over the positions in ``scored`` (B, T). The loss is ``- sum_v q(v) log p(v)`` with q uniform over them (optimal
    completion distillation, Sabour et al. 2019, with temperature 0); after a gold prefix it is that of the gold token.
    Two differences from the paper: label smoothing, and ``by_model``. With ``by_model``, q is proportional to p and
    carries no gradient; the gradient is then that of minus the log of the total probability of the optimal tokens.
    """
    each = of_optimal(optimal, references, lprobs)
    loss = nll = -each.logsumexp(dim=2)
    if not by_model:
        loss = -each.masked_fill(~optimal, 0).sum(2) / optimal.sum(2)
    share = smoothing / (lprobs.size(-1) - 1)
    loss = (1 - smoothing - share) * loss - share * lprobs.sum(-1)
    return loss.masked_fill(~scored, 0).sum(), nll.masked_fill(~scored, 0).sum()


TARGETS = ("gold", "oracle")
WEIGHTS = ("uniform", "model")


@dataclass
class TargetFlags(LabelSmoothedCrossEntropyCriterionConfig):
    targets: str = field(
        default="gold",
        metadata={
            "help": "what is right after a model-generated prefix: gold (the gold token of the same position) or "
            "oracle (all tokens from which the best edit distance is still in reach); gift_generative also: best (of "
            "several hypotheses the one nearest to the gold translation, if it is near enough); default: gold"
        },
    )
    oracle_weights: str = field(
        default="uniform",
        metadata={
            "help": "how the tokens of the oracle share the target: uniform, or model (by the model's own "
            "probabilities: the loss is the log of what they have together); default: uniform"
        },
    )


class OracleTargets:
    """:func:`oracle_loss` of the tokens that are right after what the decoder has read."""

    needs_gold = False

    def __init__(self, cfg: TargetFlags, symbols: Symbols):
        self.by_model, self.symbols = cfg.oracle_weights == "model", symbols
        self.smoothing, self.report_accuracy = cfg.label_smoothing, cfg.report_accuracy

    def __call__(self, lprobs: Tensor, prefixes: Prefixes, gold_lprobs: Optional[Tensor], target: Tensor) -> Terms:
        ignored, pad = self.symbols.ignored, self.symbols.pad
        lprobs, scored = lprobs[:, ignored:], prefixes.next_tokens[:, ignored:].ne(pad)
        optimal = optimal_next(prefixes.inputs, target, pad)[:, ignored:]
        loss, nll = oracle_loss(lprobs, optimal, target, scored, self.smoothing, self.by_model)
        right_lprobs = of_optimal(optimal, target, lprobs.detach()).amax(dim=2)
        log = accuracy_log(lprobs.detach(), right_lprobs, scored, self.report_accuracy)
        log.update(n_right_tokens=optimal.sum(2).masked_fill(~scored, 0).sum(), n_oracle=scored.sum())
        return Terms(loss, nll, log)


def token_targets(cfg: TargetFlags, symbols: Symbols, allowed: Sequence[str] = TARGETS) -> Objective:
    """The objective that ``--targets``, one of ``allowed``, names; :class:`UserError` if an option has no meaning.

    The targets of a source that has others than the gold ones (best) are gold ones to the objective.
    """
    targets = check_choice("--targets", cfg.targets, allowed)
    by_model = check_choice("--oracle-weights", cfg.oracle_weights, WEIGHTS) == "model"
    if targets == "oracle":
        return OracleTargets(cfg, symbols)
    if by_model:
        raise UserError(f"--oracle-weights is {cfg.oracle_weights}, but there is no oracle: add --targets oracle")
    return GoldTargets(cfg, symbols)
