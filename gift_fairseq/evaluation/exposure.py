"""Exposure bias, measured: how far free-running translation is from teacher-forced, position by position.

A test set is decoded in two ways:

*teacher-forced*: the decoder reads the reference. A step is optimal if the argmax is the gold token; its NLL is
``-log p(gold token)``.

*free-running*: the decoder reads its own greedy hypothesis (fairseq's generator, beam 1), up to and including the step
that emits ``</s>``. Positions no longer line up with the reference, so the optimal next tokens are those of the
edit-distance oracle (Sabour et al. 2019, see :mod:`gift_fairseq.objectives.oracle`): after every prefix the set ``S``
of tokens that keep the achievable edit distance smallest. A step is optimal if the generated token is in ``S``; its NLL
is ``-log sum of p over S``, the smallest divergence KL(q, p) of any oracle q that stays in ``S``. After a gold
prefix ``S`` is the gold token and both ways are the same. After mistakes ``S`` may be larger, which is in the
model's favour: its mean size stands beside every mean. A ``</s>`` that the length limit forces is not the model's and
not counted.

All logarithms are natural, NLL is in nats a token without label smoothing, ``</s>`` is a token, accuracies and shares
are between 0 and 1, positions and distances count from 1. A mean over no tokens is null.

The file: ``checkpoint`` (its name within the run), its ``updates``, ``testset``, ``sentences``; ``gold`` and ``own``:
``nll``, ``accuracy``, ``tokens`` over all positions of the teacher-forced and the free-running decoding (``gold``
before and after fine-tuning shows what a model forgot of gold prefixes); ``teacher_forced`` and ``free_running``:
``position``, ``tokens``, ``accuracy``, ``nll`` as lists over positions, and ``set_size``; ``excess_error``: see
:func:`excess_error`; ``recovery``: see :func:`recovery`; ``first_mistake``: ``share`` of the sentences with a step that
is not optimal, and its ``mean_position`` in those; ``seconds``.
"""

from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from fairseq.data import LanguagePairDataset
from fairseq.data.data_utils import collate_tokens
from fairseq.sequence_generator import SequenceGenerator
from fairseq.tasks import FairseqTask
from torch import Tensor, nn

from gift_fairseq.evaluation.translate import Translator, batches, check_lengths, search
from gift_fairseq.metrics import now
from gift_fairseq.objectives import oracle

DISTANCES = 20  # how many tokens after the first mistake recovery looks


class Steps(NamedTuple):
    """All decoder steps of S sentences, (S, T) each, on the CPU. Where ``counted`` is False the others mean nothing."""

    counted: Tensor
    optimal: Tensor
    nll: Tensor  # nats, float64
    set_size: Tensor  # how many next tokens are optimal


# ---- the two ways of decoding


def steps_of(
    model: nn.Module,
    read: LanguagePairDataset,
    gold: LanguagePairDataset,
    samples: Iterator[Dict],
    *,
    free_running: bool,
) -> Steps:
    """The steps of ``model`` when its decoder reads the targets of ``read``, judged by the references of ``gold``.

    One parallel pass; ``samples`` are the batches of ``read``. What is judged is the argmax; if ``free_running``, the
    token that was read next, which the model chose.
    """
    padding_idx, shape = gold.tgt_dict.pad(), (len(read), int(read.tgt_sizes.max()))
    steps = Steps(*(torch.zeros(shape, dtype=dtype) for dtype in (torch.bool, torch.bool, torch.float64, torch.int64)))
    with torch.no_grad():
        for sample in samples:
            target, ids = sample["target"], sample["id"].cpu()
            references = collate_tokens([gold.tgt[i] for i in ids.tolist()], padding_idx).to(target)
            log_probs = model.get_normalized_probs(model(**sample["net_input"]), log_probs=True)
            optimal = oracle.optimal_next(sample["net_input"]["prev_output_tokens"], references, padding_idx)
            found = Steps(
                counted=target.ne(padding_idx),
                optimal=oracle.contains(optimal, references, target if free_running else log_probs.argmax(dim=2)),
                nll=-oracle.log_mass(optimal, references, log_probs),
                set_size=optimal.sum(dim=2),
            )
            for whole, part in zip(steps, found):
                whole[ids, : target.size(1)] = part.to(whole)
    assert steps.counted[:, 0].all(), "a sentence was lost"
    return steps


def with_targets(dataset: LanguagePairDataset, targets: Sequence[Tensor]) -> LanguagePairDataset:
    """``dataset`` with ``targets``, each ending in ``</s>``, in place of the references."""
    return LanguagePairDataset(
        *(dataset.src, dataset.src_sizes, dataset.src_dict),
        *(targets, np.array([len(target) for target in targets]), dataset.tgt_dict),
        left_pad_source=dataset.left_pad_source,
        left_pad_target=False,
        shuffle=False,
    )


def read_both(
    task: FairseqTask,
    models: Sequence[nn.Module],
    generator: SequenceGenerator,
    dataset: LanguagePairDataset,
    max_tokens: int,
    use_cuda: bool = False,
) -> Tuple[Steps, Steps]:
    """Teacher-forced and free-running steps of the one model in ``models``, in evaluation mode."""
    (model,) = models
    model.eval()

    def batches_of(read: LanguagePairDataset, what: str) -> Iterator[Dict]:
        return batches(task, read, max_tokens, use_cuda, what=what)

    gold = steps_of(model, dataset, dataset, batches_of(dataset, "teacher-forced"), free_running=False)
    found = search(task, models, generator, batches_of(dataset, "translating"))
    hypotheses = with_targets(dataset, [best[0][1] for best in found])
    own = steps_of(model, hypotheses, dataset, batches_of(hypotheses, "free-running"), free_running=True)
    limit = min(generator.max_len_b, generator.max_len - 1)  # tokens; at the next step </s> is forced
    own.counted[:, limit:] = False
    return gold, own


# ---- what the steps say


def _mean(values: Tensor, where: Tensor) -> Optional[float]:
    return values[where].double().mean().item() if where.any() else None


def overall(steps: Steps) -> Dict[str, Any]:
    """``nll``, ``accuracy`` and number of ``tokens`` over all positions."""
    accuracy = _mean(steps.optimal, steps.counted)
    return {"nll": _mean(steps.nll, steps.counted), "accuracy": accuracy, "tokens": int(steps.counted.sum())}


def by_position(steps: Steps, positions: int) -> Dict[str, List]:
    """The same at each of the first ``positions`` positions, with the mean size of the oracle's set."""
    columns = [Steps(*(part[:, t : t + 1] for part in steps)) for t in range(positions)]
    curves: Dict[str, List] = {"position": list(range(1, positions + 1))}
    for key in ("tokens", "accuracy", "nll"):
        curves[key] = [overall(column)[key] for column in columns]
    curves["set_size"] = [_mean(column.set_size, column.counted) for column in columns]
    return curves


def excess_error(gold: Dict[str, List], own: Dict[str, List]) -> Dict[str, List]:
    """Accumulated and excess error up to each position, of the curves :func:`by_position` gives.

    After Arora, El Asri, Bahuleyan and Cheung (2022, Why Exposure Bias Matters: An Imitation Learning Perspective of
    Error Accumulation in Language Generation, Findings of ACL). With e(i) the error of a step at position i,

        R(l)      = sum over i <= l of e(i), the prefixes being the model's own
        eps(l)    = 1/l times the same sum, the prefixes being gold
        accumulated = AccErr(l) = R(l) / eps(l)                 l without exposure bias
        percent     = %ExAccErr(l) = (AccErr(l) - l) / l * 100  0 without exposure bias

    Where we differ. Their e(i) is the divergence of the model from an oracle language model, in expectation over the
    oracle's next token. We have no such model but references: e(i) is the NLL of the optimal next tokens, those of the
    edit-distance oracle. The entropy of the data is hence not subtracted: it is in both sums and draws AccErr towards
    l. Their prefixes are continuations of a context of text, from several ways of decoding; ours are the one greedy
    translation from the start symbol on. A mean at position i is over the sentences that reach it, which may be
    other ones in the two ways of decoding. Where the oracle allows several tokens its error is smaller: percent may be
    negative. ``accumulated_mistakes`` and ``percent_mistakes`` are the same with the error rate, 1 - accuracy, as e(i).
    A value is null from the first position on that no sentence reaches, and where eps(l) is 0.
    """
    result: Dict[str, List] = {"position": gold["position"]}
    lengths = np.arange(1, len(gold["position"]) + 1)
    for suffix, key in (("", "nll"), ("_mistakes", "accuracy")):
        means = (np.array(curves[key], dtype=float) for curves in (own, gold))  # NaN where there is none
        own_sums, gold_sums = (np.cumsum(mean if key == "nll" else 1 - mean) for mean in means)
        with np.errstate(divide="ignore", invalid="ignore"):
            accumulated = own_sums / (gold_sums / lengths)
        for name, values in (("accumulated", accumulated), ("percent", (accumulated - lengths) / lengths * 100)):
            result[name + suffix] = [value if np.isfinite(value) else None for value in values.tolist()]
    return result


def _first_mistakes(own: Steps) -> Tuple[Tensor, Tensor]:
    """Which sentences have a mistake, (S,), and the step of the first one, (S,), from 0."""
    mistakes = own.counted & ~own.optimal
    return mistakes.any(dim=1), mistakes.int().argmax(dim=1)


def first_mistake(own: Steps) -> Dict[str, Optional[float]]:
    """``share`` of the sentences that have a mistake, and the ``mean_position`` of the first one in those."""
    has_one, first = _first_mistakes(own)
    return {"share": has_one.double().mean().item(), "mean_position": _mean(first + 1, has_one)}


def recovery(own: Steps) -> Dict[str, List]:
    """``accuracy`` and number of ``tokens`` at each ``distance`` of 1 to 20 tokens after the first mistake."""
    has_one, first = _first_mistakes(own)
    columns = first.unsqueeze(1) + torch.arange(1, DISTANCES + 1)
    length = own.counted.size(1)
    reached = has_one.unsqueeze(1) & columns.lt(length)
    columns = columns.clamp(max=length - 1)
    following = Steps(*(part.gather(1, columns) for part in own))
    curves = by_position(following._replace(counted=following.counted & reached), DISTANCES)
    return {"distance": curves["position"], "tokens": curves["tokens"], "accuracy": curves["accuracy"]}


def report(gold: Steps, own: Steps, positions: int) -> Dict[str, Any]:
    """What the file says of the two ways of decoding; see above."""
    gold_curves, own_curves = by_position(gold, positions), by_position(own, positions)
    excess = excess_error(gold_curves, own_curves)
    del gold_curves["set_size"]  # 1
    return {
        "sentences": len(gold.counted),
        "gold": overall(gold),
        "own": overall(own),
        "teacher_forced": gold_curves,
        "free_running": own_curves,
        "excess_error": excess,
        "recovery": recovery(own),
        "first_mistake": first_mistake(own),
    }


def measure(translator: Translator, name: str, subset: str, positions: int, max_tokens: int) -> Dict[str, Any]:
    """The measure of the test set ``name``, fairseq's ``subset``, with the ``seconds`` that it took.

    ``max_tokens`` are those of a batch, padded. :class:`UserError` if the model does not take a sentence's tokens.
    """
    device = torch.device("cuda" if translator.use_cuda else "cpu")
    dataset = translator.dataset(subset)
    check_lengths(translator.checkpoint, name, dataset, translator.max_positions)
    start = now(device)
    gold, own = read_both(
        *(translator.task, translator.models, translator.generator(1)), *(dataset, max_tokens, translator.use_cuda)
    )
    return {"testset": name, **report(gold, own, positions), "seconds": now(device) - start}


def summary(found: Dict[str, Any]) -> str:
    """What :func:`measure` found, in a line."""
    words = [
        f"after {prefixes} {100 * found[key]['accuracy']:.1f}% optimal tokens, {found[key]['nll']:.3f} nats"
        for key, prefixes in (("gold", "gold prefixes"), ("own", "the model's own"))
    ]
    first = found["first_mistake"]
    where = f", at token {first['mean_position']:.1f}" if first["share"] else ""
    mistakes = f"a mistake in {100 * first['share']:.1f}% of {found['sentences']} sentences{where}"
    return f"{'; '.join([*words, mistakes])}; {found['seconds']:.1f} s"
