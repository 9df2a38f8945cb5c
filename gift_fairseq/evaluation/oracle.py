"""Which next tokens are right after a prefix that may hold mistakes: the dynamic oracle of the edit distance.

After a gold prefix the next reference token is right. After any other, positions no longer line up. Optimal completion
distillation (Sabour, Chan and Norouzi 2019, Optimal Completion Distillation for Sequence Learning, section 3.2) asks
which tokens keep the best edit distance that is still achievable. With ``d(t, j)`` the Levenshtein distance (insertion,
deletion, substitution: 1 each) of the first t tokens of the hypothesis to the first j of the reference, appending the
rest of the reference behind its first j tokens costs nothing more, so the best achievable is ``min_j d(t, j)``, and the
right next tokens are exactly the ``reference[j]`` of all j that reach it. ``</s>`` is right where the whole text of the
reference does. Their dynamic programme, but a row of it at a time for the whole batch.

Shapes: ``B`` sentences, ``T`` decoder positions, ``R`` reference tokens, padded on the right. ``inputs`` (B, T) is what
the decoder read: the start symbol, then the hypothesis, so that position t chooses behind ``inputs[:, 1 : t + 1]``.
``references`` (B, R) end in ``</s>``. At positions behind the end of a hypothesis the results mean nothing. All are
pure functions on any device, without a (B, T, V) tensor of their own; :func:`log_mass` passes gradients on.
"""

import torch
from torch import Tensor


def prefix_distances(inputs: Tensor, references: Tensor) -> Tensor:
    """Edit distances (B, T, R) of what position t has read, without the start symbol, to the first j reference tokens.

    Columns j behind the end of a reference mean nothing.
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
    one is marked at every position, and just the gold one behind a gold prefix.
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
    """Log of the probability (B, T) that ``log_probs`` (B, T, V) give to the right tokens together.

    Behind a gold prefix that is the log-probability of the gold token.
    """
    chosen = log_probs.gather(2, references.unsqueeze(1).expand(optimal.shape))
    return chosen.masked_fill(~optimal, float("-inf")).logsumexp(dim=2)
