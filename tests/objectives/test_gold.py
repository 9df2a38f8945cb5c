"""Gold targets as functions of log-probabilities."""

import pytest
import torch
from naive import EPSILON, PAD, smoothed

from gift_fairseq.objectives.gold import accuracy_log, first_token_weights, label_smoothed

TARGET = torch.tensor([[5, 6, 2], [4, 2, PAD], [PAD, PAD, PAD]])


@pytest.mark.parametrize("reduce", [True, False])
def test_label_smoothed_against_a_loop(reduce):
    logits = torch.randn(3, 3, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    loss, nll = label_smoothed(logits.log_softmax(-1), TARGET, EPSILON, PAD, reduce)
    scored = [(b, t) for b in range(3) for t in range(3) if TARGET[b, t] != PAD]
    naive = {(b, t): smoothed(logits[b, t], TARGET[b, t]) for b, t in scored}
    naive_nll = {(b, t): -logits[b, t].log_softmax(-1)[TARGET[b, t]] for b, t in scored}
    for found, each in ((loss, naive), (nll, naive_nll)):
        if reduce:
            torch.testing.assert_close(found, sum(each.values()))
        else:
            expected = [each.get((b, t), torch.tensor(0.0)).item() for b in range(3) for t in range(3)]
            assert found.flatten().tolist() == pytest.approx(expected)
    (gradient,) = torch.autograd.grad(loss.sum(), logits, retain_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(sum(naive.values()), logits)[0])


@pytest.mark.parametrize("per_sentence, first", [(False, [0.7 + 0.3 * 3, 0.7 + 0.3 * 2, 0.7]), (True, [0.7 + 0.3] * 3)])
def test_first_token_weights_by_hand(per_sentence, first):
    weights = first_token_weights(TARGET, 0.3, PAD, per_sentence, torch.float64)
    assert weights[:, 0].tolist() == pytest.approx(first) and weights[:, 1:].eq(0.7).all()
    assert weights.dtype == torch.float64
    assert first_token_weights(TARGET[:, :0], 0.3, PAD, per_sentence, torch.float64).shape == (3, 0)


def test_accuracy_by_hand():
    """Of five scored tokens three are right, of two first ones one; padding is never right."""
    predicted = torch.tensor([[5, 7, 2], [7, 2, PAD], [PAD, PAD, PAD]])
    lprobs = torch.nn.functional.one_hot(predicted, 9).double().log_softmax(-1)
    log = {key: int(value) for key, value in accuracy_log(lprobs, TARGET, PAD, all_tokens=True).items()}
    assert log == {"n_first": 2, "n_first_right": 1, "total": 5, "n_correct": 3}
    assert accuracy_log(lprobs, TARGET, PAD, all_tokens=False).keys() == {"n_first", "n_first_right"}
