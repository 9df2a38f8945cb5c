"""Gold targets as functions of log-probabilities."""

import pytest
import torch
from naive import PAD

from gift_fairseq.objectives.gold import accuracy_log, first_token_weights

TARGET = torch.tensor([[5, 6, 2], [4, 2, PAD], [PAD, PAD, PAD]])


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
    right_lprobs = lprobs.gather(2, TARGET.unsqueeze(2)).squeeze(2)
    for all_tokens, more in ((True, {"total": 5, "n_correct": 3}), (False, {})):
        log = accuracy_log(lprobs, right_lprobs, TARGET.ne(PAD), all_tokens)
        assert {key: int(value) for key, value in log.items()} == {"n_first": 2, "n_first_right": 1, **more}
