"""How a token is taken by its scores, and the state of the decoder in which tokens are generated."""

import contextlib
from typing import Any, Iterator, NamedTuple, Optional, Tuple

import torch
from fairseq.distributed import utils as distributed_utils
from torch import Tensor, nn

from gift_fairseq.errors import UserError, check_choice


class Sampler(NamedTuple):
    """How the next token is taken by its scores: the argmax, or a sample from their softmax.

    A token is sampled with probability ``softmax(scores / temperature)``, of the ``top_k`` best only unless that is 0;
    temperature 0 is the argmax. Adding Gumbel noise to the scores and taking the best (Zhang et al. 2019, Bridging
    the Gap between Training and Inference for Neural Machine Translation, section 3.2.1) is sampling at
    temperature 1: noise of scale T samples from ``softmax(scores / T)``. ``noise`` is the random generator, on the
    device of the scores.
    """

    forbidden: Tuple[int, ...] = ()  # never taken
    temperature: float = 0.0
    top_k: int = 0
    noise: Optional[torch.Generator] = None

    def __call__(self, scores: Tensor, rows: Optional[Tensor] = None) -> Tensor:
        """The tokens (...) taken by ``scores`` (..., V), in which the forbidden ones are overwritten.

        The mask is minus infinity, which every floating type has, and comes before the argmax. Which ``rows`` of a
        rollout the scores are of does not matter here.
        """
        return self.taken(self.masked(scores))

    def masked(self, scores: Tensor) -> Tensor:
        """``scores`` (..., V), the forbidden ones overwritten."""
        for token in self.forbidden:  # a fill each: indexing with a list would copy it to the device every time
            scores[..., token] = float("-inf")
        return scores

    def taken(self, scores: Tensor, point: Optional[Tensor] = None) -> Tensor:
        """As :meth:`__call__`, of masked scores; ``point`` (...) from 0 to 1 says what is drawn, in place of noise."""
        if self.temperature == 0:
            return scores.argmax(dim=-1)
        if 0 < self.top_k < scores.size(-1):
            best, candidates = scores.topk(self.top_k, dim=-1)
            return candidates.gather(-1, self._sample(best, point).unsqueeze(-1)).squeeze(-1)
        return self._sample(scores, point)

    def _sample(self, scores: Tensor, point: Optional[Tensor]) -> Tensor:
        """By the inverse of the cumulative distribution: one random number a row, where Gumbel noise takes V."""
        cumulative = (scores.float() / self.temperature).softmax(dim=-1).cumsum(dim=-1)
        total = cumulative[..., -1:]
        if point is None:
            point = torch.rand(total.shape[:-1], generator=self.noise, device=scores.device)
        point = point.unsqueeze(-1) * total
        point = torch.minimum(point, total.nextafter(torch.zeros_like(total)))  # rounded up it would lie past the last
        tokens = torch.searchsorted(cumulative, point, right=True).squeeze(-1)
        return tokens.clamp(max=scores.size(-1) - 1)  # past the last only where scores are no numbers


class SeveralDrawn(NamedTuple):
    """How the tokens of ``copies`` hypotheses of every sentence are taken: row r is of sentence ``r // copies``.

    Each of all ``total`` rows is drawn by numbers of its own, whichever rows are still computed. With ``greedy`` the
    first of each sentence takes the argmax instead.
    """

    drawn: Sampler
    copies: int
    total: int
    greedy: bool

    def __call__(self, scores: Tensor, rows: Tensor) -> Tensor:
        """The tokens (n,) of ``rows`` (n,) by their ``scores`` (n, V); called once a step."""
        points = torch.rand(self.total, generator=self.drawn.noise, device=scores.device)[rows]
        scores = self.drawn.masked(scores)
        tokens = self.drawn.taken(scores, points)
        if self.greedy:
            first = rows.remainder(self.copies).eq(0)
            tokens[first] = scores[first].argmax(dim=-1)
        return tokens


def worker_generator(device: torch.device) -> torch.Generator:
    """A generator on ``device``, seeded from torch's random stream and the worker's rank.

    Drawing the seed advances the stream.

    Rollouts leave the stream as they found it (:func:`generating`), so draws from the stream itself would come again as
    the dropout of the pass that is trained on. fairseq seeds the stream of all workers alike; without the rank they
    would draw the same numbers for different sentences.
    """
    seed = int(torch.randint(2**62, ()))
    if distributed_utils.get_data_parallel_world_size() > 1:
        seed += distributed_utils.get_data_parallel_rank()
    return torch.Generator(device).manual_seed(seed)


def seeded(sampler: Sampler, device: torch.device) -> Sampler:
    """``sampler`` with a :func:`worker_generator` of its own, if it samples."""
    return sampler if sampler.temperature == 0 else sampler._replace(noise=worker_generator(device))


DTYPES = {"model": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def dtype_named(name: str) -> Optional[torch.dtype]:
    """What ``--rollout-dtype`` means, None for the model's own type; :class:`UserError` if it means nothing."""
    return DTYPES[check_choice("--rollout-dtype", name, DTYPES)]


def _check_dtype(dtype: Optional[torch.dtype], decoder: nn.Module) -> None:
    """:class:`UserError` if the weights are in half precision of another kind, which torch does not mix."""
    names = {value: name for name, value in DTYPES.items() if value is not None}
    weights = next(decoder.parameters()).dtype
    if dtype is not None and weights in names and weights != dtype:
        raise UserError(
            f"--rollout-dtype is {names[dtype]}, but the model's weights are in {names[weights]}: it must be model or "
            f"{names[weights]}"
        )


@contextlib.contextmanager
def generating(decoder: nn.Module, device: torch.device, dtype: Optional[torch.dtype] = None) -> Iterator[None]:
    """No gradient and no dropout in the decoder; afterwards training flags, random stream and autocast are as before.

    ``dtype`` opens autocast to that type (:class:`UserError` if it does not fit the weights); None leaves it as it is.
    Autocast's weight cache is off inside. Otherwise older torch would use the half-precision copies made here, without
    gradient, again in the training pass, and the weights would get no gradient. Those copies are why linear layers get
    their input :func:`_in_order`.
    The random stream is kept because fairseq's layer-drop draws from it in evaluation mode too.
    """
    _check_dtype(dtype, decoder)
    training = [module for module in decoder.modules() if module.training]
    autocast = torch.autocast(
        device.type,
        dtype=dtype or torch.get_autocast_dtype(device.type),
        enabled=dtype is not None or torch.is_autocast_enabled(device.type),
        cache_enabled=False,
    )
    cuda_devices = [device] if device.type == "cuda" else []
    linear = [module for module in decoder.modules() if isinstance(module, nn.Linear)]
    hooks = [module.register_forward_pre_hook(_in_order) for module in linear]
    decoder.eval()
    try:
        with torch.no_grad(), autocast, torch.random.fork_rng(devices=cuda_devices):
            yield
    finally:
        for module in training:
            module.training = True
        for hook in hooks:
            hook.remove()


def _in_order(_module: nn.Module, inputs: Tuple[Tensor, ...]) -> Tuple[Tensor, ...]:
    """``inputs`` of a linear layer, the first (..., C) with the strides of its shape.

    torch multiplies one that is transposed, as fairseq's decoders have it before the output projection, by a copy of
    the weight for every sentence, unless the weight requires a gradient, which autocast's copy of it does not here.
    """
    states, *others = inputs
    return states.flatten(0, -2).view(states.shape), *others


def scores_of(decoder: nn.Module, output: Any) -> Tensor:
    """What to take the argmax of, (B, T, V): logits, or log-probabilities where the softmax is adaptive."""
    if getattr(decoder, "adaptive_softmax", None) is not None:
        return decoder.get_normalized_probs(output, log_probs=True, sample=None)
    return output[0]
