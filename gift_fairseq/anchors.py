"""The model that fine-tuning started from, to stay near to."""

import copy
from typing import Any, Dict, List

import torch
from torch import Tensor, nn

from gift_fairseq.checkpoints import read_checkpoint
from gift_fairseq.rollout.choosing import choosing


class StartingModel:
    """A frozen copy of the model as ``path`` (``--finetune-from-model``) has it, on the device of the running one.

    It is read from the file, not from the running model: after a resume that one has moved on. It is no module, so that
    neither fairseq's optimizer nor its checkpoints see it.
    """

    def __init__(self, path: str, model: nn.Module):
        computed = (value for module in model.modules() for value in vars(module).values())
        # fconv's weights are computed anew from their parts in every forward; with a gradient they cannot be copied
        memo = {id(value): value.detach() for value in computed if isinstance(value, Tensor) and not value.is_leaf}
        self.model = copy.deepcopy(model, memo)  # its architecture, device and type
        self.model.load_state_dict(read_checkpoint("--finetune-from-model", path)["model"], strict=True)
        self.model.eval().requires_grad_(False)

    def lprobs(self, net_input: Dict[str, Any]) -> Tensor:
        """Log-probabilities (B, T, V) on gold inputs, without gradient or dropout; the random stream stays."""
        with choosing(self.model, net_input["src_tokens"].device):
            return self.model.get_normalized_probs(self.model(**net_input), log_probs=True)

    def squared_distance(self, model: nn.Module) -> Tensor:
        """Sum of the squared differences of all parameters of ``model`` from where they started."""
        pairs = zip(model.parameters(), self.model.parameters())
        parts: List[Tensor] = [(_wide(now) - _wide(then)).pow(2).sum() for now, then in pairs if now.requires_grad]
        return torch.stack(parts).sum()


def _wide(weight: Tensor) -> Tensor:
    """In float32 at least: half precision holds no sum of small squares."""
    return weight.to(torch.promote_types(weight.dtype, torch.float32))
