"""What only a GPU can show, as checks: each returns what it found, or raises AssertionError with what is wrong.

``gift gpu-check`` and the tests for machines with a GPU call the same ones. With the CPU as their device they compare
it with itself: a rehearsal.
"""

import math
import statistics
from functools import partial
from typing import Any, Callable, Dict, List, Tuple

import torch
from fairseq import utils
from fairseq.logging import metrics
from fairseq.trainer import Trainer
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from gift_fairseq import rollout
from gift_fairseq.evaluation.benchmark import BF16_ROLLOUT, DTYPES, EVERY_UPDATE, STANDARD, VARIANTS, Bench
from gift_fairseq.metrics import MIB
from gift_fairseq.prefixes.source import Symbols
from gift_fairseq.rollout import graphs

MODEL = (
    "--encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 64 --decoder-embed-dim 64 --encoder-ffn-embed-dim 128 "
    "--decoder-ffn-embed-dim 128 --encoder-attention-heads 4 --decoder-attention-heads 4 --share-all-embeddings"
)
VOCABULARY, SENTENCES, LENGTH, UPDATES = 60, 12, 15, 40
# fairseq's own mixed precision, its bf16, and torch's autocast
PRECISIONS = {"fp16": "--fp16", "bf16": "--bf16", "amp": "--amp"}


def _bench(device: torch.device, dtype: torch.dtype = torch.float32, flags: str = "--dropout 0") -> Bench:
    return Bench("transformer_wmt_en_de", VOCABULARY, device, dtype, f"{MODEL} {flags}".split())


def same_as_on_the_cpu(criterion: str, device: torch.device) -> str:
    """Loss and gradient of the flags ``criterion``, in fp32 and without dropout, against those on the CPU."""

    def loss_and_gradient(where: torch.device) -> Tuple[float, List[Tensor]]:
        bench = _bench(where)
        loss = bench.criterion(criterion, SENTENCES // 2)(bench.model, bench.batch(SENTENCES, LENGTH, ragged=True))[0]
        return loss.item(), torch.autograd.grad(loss, list(bench.model.parameters()), allow_unused=True)

    (expected_loss, expected), (loss, gradient) = map(loss_and_gradient, (torch.device("cpu"), device))
    off_by = abs(loss - expected_loss) / abs(expected_loss)
    used = [(one.cpu(), other) for one, other in zip(gradient, expected) if other is not None]
    size = sum(other.square().sum().item() for _, other in used) ** 0.5
    distance = sum((one - other).square().sum().item() for one, other in used) ** 0.5 / size
    found = f"loss off by {off_by:.1e}, gradient by {distance:.1e}, relatively"
    assert off_by < 1e-5 and distance < 1e-4 and math.isfinite(size), found
    return found


def trainer_of(criterion: str, device: torch.device, flags: str = "") -> Tuple[Trainer, Dict[str, Any]]:
    """fairseq's trainer, as fairseq-train makes it, and a batch on the CPU."""
    where = "--cpu" if device.type == "cpu" else ""
    bench = _bench(torch.device("cpu"), flags=f"--optimizer adam --lr 3e-3 --max-tokens 4000 {where} {flags}")
    trainer = Trainer(bench.config(criterion), bench.task, bench.model, bench.criterion(criterion, SENTENCES // 2))
    trainer.begin_epoch(1)
    metrics.reset()
    return trainer, bench.batch(SENTENCES, LENGTH, ragged=True)


def learns(criterion: str, precision: str, device: torch.device) -> str:
    """Training in ``precision``: all losses are numbers, hardly an update overflows, gold NLL falls by a third."""
    if criterion.startswith("gift_risk"):
        criterion += " --mle-weight 0.5"  # by itself it begins with a trained model
    if criterion.startswith("gift_distillation"):
        criterion += " --margin-weight 0.5"  # at 2 the margin, which no NLL needs, leads for so few updates
    trainer, sample = trainer_of(criterion, device, precision)

    def gold_nll() -> float:
        return trainer.valid_step(sample)["nll_loss"]

    before = gold_nll()
    losses = [log["loss"] for log in (trainer.train_step([sample]) for _ in range(UPDATES)) if log is not None]
    after = gold_nll()
    found = f"gold NLL {before:.2f} to {after:.2f} bits a token, {len(losses)} of {UPDATES} updates made"
    assert all(map(math.isfinite, [*losses, after])) and len(losses) > 0.8 * UPDATES and after < 0.67 * before, found
    return found


def _trained(dtype: str, device: torch.device) -> Tuple[Any, Bench]:
    """A model that has learned the first batch on the CPU: an untrained one says the same word again and again."""
    trainer, sample = trainer_of(VARIANTS[STANDARD], torch.device("cpu"))
    for _ in range(2 * UPDATES):
        trainer.train_step([sample])
    return trainer.get_model().to(device, DTYPES[dtype]).eval(), _bench(device)


def beam_as_on_the_cpu(device: torch.device) -> str:
    """The best hypothesis of a beam of 5 in fp32; rounding may exchange two of about the same score."""
    model, bench = _trained("fp32", device)
    words = bench.task.target_dictionary
    net_input = bench.batch(SENTENCES, LENGTH, ragged=True)["net_input"]
    longest = net_input["prev_output_tokens"].ne(words.pad()).sum(dim=1)

    def best(where: torch.device) -> List[List[int]]:
        model.to(where)
        inputs = utils.apply_to_sample(lambda it: it.to(where), net_input)
        encoder_out = model.encoder(inputs["src_tokens"], src_lengths=inputs["src_lengths"])
        rows = rollout.beam(model, inputs, encoder_out, words, 5, longest.to(where)).tolist()
        return [[token for token in row if token != words.pad()] for row in rows[::5]]

    with torch.no_grad():
        found_there, expected = best(device), best(torch.device("cpu"))
    same = [one == other for one, other in zip(found_there, expected)]
    found = f"{sum(same)} of {len(same)} best hypotheses equal, {statistics.mean(map(len, expected)):.1f} tokens long"
    assert statistics.mean(same) >= 0.8, found
    return found


def graphs_equal_the_engine(dtype: str, device: torch.device) -> str:
    """The tokens of CUDA graphs (uncaptured on the CPU) and of the plain engine, in batches of several sizes.

    All are equal in fp32. In half precision two best scores may be so close that the kernels for the rounded sizes
    choose the other.
    """
    model, bench = _trained(dtype, device)
    decoder, words = model.decoder, bench.task.target_dictionary
    greedy, engine = rollout.Sampler(Symbols.of(words).forbidden), None if device.type == "cuda" else graphs.StaticSteps
    same: List[bool] = []
    with torch.no_grad():
        for sentences, length in ((SENTENCES, LENGTH), (4, 7), (40, 50), (3, 40), (SENTENCES, LENGTH)):
            net_input = bench.batch(sentences, length, ragged=True)["net_input"]
            encoder_out = model.encoder(net_input["src_tokens"], src_lengths=net_input["src_lengths"])
            what = (decoder, net_input["prev_output_tokens"], encoder_out, greedy, words.pad())
            read = what[1][:, 1:].ne(words.pad())  # what no input reads may be anything
            one, other = rollout.free_running(*what), rollout.free_running(*what, cuda_graphs=True, engine=engine)
            same += (one[:, :-1].eq(other[:, :-1]) | ~read).all(dim=1).tolist()
    captured = len(graphs.captured(decoder))
    found = f"{sum(same)} of {len(same)} sentences equal, {captured} graphs captured"
    assert (captured > 0) == (device.type == "cuda"), found
    assert statistics.mean(same) >= (1 if dtype == "fp32" else 0.8), found
    return found


def memory_as_the_allocator_has_it(device: torch.device) -> str:
    """What is logged against torch's allocator, read apart: its peak after each step, before fairseq resets it, and
    what is held at each loss. The third update holds 512 MiB more for a while, a validation step 1 GiB."""
    trainer, sample = trainer_of(VARIANTS[STANDARD], device)
    peaks: List[float] = []
    held: List[float] = []

    def forward(model, _inputs, _output) -> None:
        torch.empty(
            (1024 if not model.training else 512 if len(peaks) == 2 else 1) * MIB, dtype=torch.uint8, device=device
        )

    trainer.get_model().register_forward_hook(forward)
    trainer.get_criterion().register_forward_hook(lambda *_: held.append(torch.cuda.memory_allocated() / MIB))
    step = register_optimizer_step_post_hook(lambda *_: peaks.append(torch.cuda.max_memory_allocated() / MIB))
    for _ in range(4):
        trainer.train_step([sample])
        trainer.valid_step(sample)
        held.pop()  # that of the validation
    step.remove()
    logged = metrics.get_smoothed_values("train")
    peak, average = logged["peak_mem_mib"], logged["mem_mib"]
    found = f"peak {peak:.1f} MiB, read {max(peaks):.1f}; average {average:.1f} MiB, read {statistics.mean(held):.1f}"
    assert abs(peak - max(peaks)) < 0.1 and abs(average - statistics.mean(held)) < 1 and peak > average, found
    return found


def _checks() -> Dict[str, Callable[[torch.device], str]]:
    found: Dict[str, Callable[[torch.device], str]] = {}
    ours = {name: flags for name, flags in VARIANTS.items() if flags.startswith("gift_")}
    for name, flags in ours.items():
        if "sampled" not in name and "--rollout-dtype" not in flags:  # draws and halves are other ones on a GPU
            found[f"fp32 as on the CPU: {name}"] = partial(same_as_on_the_cpu, flags)
    for precision, flag in PRECISIONS.items():
        for name, flags in ours.items():
            if precision != "fp16" or BF16_ROLLOUT not in name:  # refused over fp16 weights
                found[f"learns in {precision}: {name}"] = partial(learns, flags, flag)
    for dtype in DTYPES:
        found[f"graphs' tokens in {dtype}"] = partial(graphs_equal_the_engine, dtype)
    found["beam as on the CPU"] = beam_as_on_the_cpu
    return {**found, "memory": memory_as_the_allocator_has_it}


CHECKS = _checks()
REHEARSED = (  # what the CPU can do, in seconds
    f"fp32 as on the CPU: {EVERY_UPDATE}",
    f"learns in bf16: {STANDARD}",
    f"learns in bf16: {EVERY_UPDATE}",
    "graphs' tokens in fp32",
    "beam as on the CPU",
)
