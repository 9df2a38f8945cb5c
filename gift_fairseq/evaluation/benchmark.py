"""What the strategies cost: time and memory of an update, and how rollouts grow, against peers on the same batches.

All variants run in one process, interleaved: every round runs all of them, each round beginning with another one, so
that a machine that slows down slows all alike. The model is untrained; a rollout to the gold length costs the same
whatever the words are, and one that may end itself hardly does before the gold length, where it is cut here. All
sentences of a batch have the same length, which is the engine's worst case: it computes nothing for sentences that have
ended.
"""

import contextlib
import ctypes
import platform
import random
import statistics
import tempfile
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional

import torch
from fairseq import options as fairseq_options
from fairseq import tasks, utils
from fairseq.data import Dictionary, LanguagePairDataset
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from gift_fairseq import metrics, rollout
from gift_fairseq.criterions.distillation import DistillationCriterion
from gift_fairseq.errors import fairseq_reads
from gift_fairseq.prefixes import tensors
from gift_fairseq.prefixes.source import Symbols
from gift_fairseq.rollout.incremental import IncrementalSteps
from gift_fairseq.substitution import decoder_reads
from gift_fairseq.tasks import gift_translation  # noqa: F401  registers the task

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
STANDARD, EVERY_UPDATE = "standard", "generative, every update"
GRAPHS = "graphs"  # in the names of what replays CUDA graphs; the names of what draws tokens have "sampled"
BF16_ROLLOUT = "bf16 rollout"
BEST_OF_4 = "best of 4 sampled, every update"
EVERY_UPDATE_GRAPHS = f"{EVERY_UPDATE}, {GRAPHS}"
GENERATE = "gift_generative --generate-ratio 1"
RISK = "gift_risk --generate-ratio 1"
BEST = f"{GENERATE} --targets best --choose sample --length-tolerance 0 --candidates"
VARIANTS = {
    STANDARD: "gift_standard",
    "auxiliary": "gift_auxiliary",
    "recurrent": "gift_recurrent",
    "recurrent, two passes": "gift_recurrent --passes 2",
    "recurrent, gold prefixes beside": "gift_recurrent --mle-weight 0.5",
    f"recurrent, {BF16_ROLLOUT}": "gift_recurrent --rollout-dtype bf16",
    EVERY_UPDATE: GENERATE,
    "generative, every update, sampled": f"{GENERATE} --choose sample",
    "generative, every update, oracle": f"{GENERATE} --targets oracle --length-cap 1",
    f"{EVERY_UPDATE}, {BF16_ROLLOUT}": f"{GENERATE} --rollout-dtype bf16",
    EVERY_UPDATE_GRAPHS: f"{GENERATE} --rollout-cuda-graphs",
    BEST_OF_4: f"{BEST} 4",
    "best of 8 sampled, every update": f"{BEST} 8",
    "risk, every update, 4 sampled": f"{RISK} --length-cap 1",
    "risk, every update, beam of 4": f"{RISK} --candidates-from beam --length-cap 1",
    "weighted": "gift_weighted",
    "consistency": "gift_consistency",
    "consistency, shared encoder": "gift_consistency --share-encoder",
    "distillation, half of the pairs own": "gift_distillation",
    "peer: fairseq's label_smoothed_cross_entropy": "label_smoothed_cross_entropy",
}
TARGETS = (  # on a GPU: what generates, in which share of the updates, and what these may cost at most, x standard
    ("recurrent", 1.0, 1.15),
    *((name, share, most) for share, most in ((1.0, 1.5), (0.1, 1.05)) for name in (EVERY_UPDATE, EVERY_UPDATE_GRAPHS)),
    (BEST_OF_4, 1.0, 2.0),
)
INCREMENTAL = "peer: generative over incremental_state"
UNCACHED = "peer: back-propagation through uncached steps"


@dataclass
class Measured:
    """One variant: seconds of its calls, MiB at the peak of each, floating-point operations of its matrix products."""

    seconds: List[float] = field(default_factory=list)
    peaks: List[float] = field(default_factory=list)
    flops: Optional[float] = None

    def summary(self, yardstick: "Measured") -> Dict[str, Optional[float]]:
        """Medians over the rounds; ``ratio`` is that of the times in the same round, by which drift cancels out."""
        median = statistics.median(self.seconds)
        return {
            "seconds": median,
            "ratio": statistics.median(own / other for own, other in zip(self.seconds, yardstick.seconds)),
            "spread": (max(self.seconds) - min(self.seconds)) / median,
            "peak_mib": statistics.median(self.peaks),
            "gflops": None if self.flops is None else self.flops / median / 1e9,
        }


def measure(variants: Dict[str, Callable[[], Any]], rounds: int, device: torch.device) -> Dict[str, Dict[str, Any]]:
    """Every variant over ``rounds`` interleaved calls, after one that warms up and counts its operations.

    The first variant is the yardstick of the others.
    """
    measured = {name: Measured() for name in variants}
    names = list(variants)
    for name, call in variants.items():
        if GRAPHS in name:  # torch's counter would disturb the capture, and does not see what is replayed
            call()
        else:
            measured[name].flops = _operations(call)
    for number in tqdm(range(rounds), disable=None, leave=False):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            _give_back_free_memory()
            metrics.take_peak()
            start = metrics.now(device)
            variants[name]()
            measured[name].seconds.append(metrics.now(device) - start)
            measured[name].peaks.append(metrics.take_peak())
    return {name: result.summary(measured[names[0]]) for name, result in measured.items()}


def _operations(call: Callable[[], Any]) -> Optional[float]:
    """Floating-point operations of the matrix products in ``call``; None where torch's counter cannot follow it."""
    try:
        with FlopCounterMode(display=False) as counter:
            call()
    except AssertionError:  # it hooks modules in ways that cells of recurrent networks do not bear without gradient
        call()
        return None
    return counter.get_total_flops()


def _give_back_free_memory() -> None:
    """What the last variant freed must not count as held by the next one; glibc keeps it otherwise."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


class Bench:
    """A model of ``arch`` with a vocabulary of ``vocabulary`` words, its task, and batches for it."""

    def __init__(self, arch: str, vocabulary: int, device: torch.device, dtype: torch.dtype, flags: List[str]):
        self.device = device
        words = Dictionary()
        for number in range(vocabulary - len(words)):
            words.add_symbol(f"w{number}")
        with tempfile.TemporaryDirectory() as folder:
            for language in ("en", "de"):
                words.save(f"{folder}/dict.{language}.txt")
            self.arguments = [folder, *f"--task gift_translation -s en -t de --arch {arch}".split(), *flags]
            config = self.config("label_smoothed_cross_entropy")
            self.task = tasks.setup_task(config.task)
        torch.manual_seed(1)
        self.model = self.task.build_model(config.model).to(device=device, dtype=dtype).train()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.0)  # all its work, and always the same model

    def config(self, criterion: str):
        """fairseq's configuration with the criterion of these flags, its name first."""
        arguments = [*self.arguments, "--label-smoothing", "0.1", "--criterion", *criterion.split()]
        with fairseq_reads("fairseq-train"):
            parsed = fairseq_options.parse_args_and_arch(fairseq_options.get_training_parser(), arguments)
        return convert_namespace_to_omegaconf(parsed)

    def criterion(self, flags: str, gold_pairs: int = 0) -> nn.Module:
        """The criterion of ``flags``, its name first; for distillation the pairs after ``gold_pairs`` are own ones."""
        criterion = self.task.build_criterion(self.config(flags).criterion).train()
        if isinstance(criterion, DistillationCriterion):
            criterion.gold_pairs = gold_pairs  # no data folder tells it here
        return criterion

    def batch(self, sentences: int, length: int, ragged: bool = False) -> Dict[str, Any]:
        """``sentences`` pairs of random words, source and target of ``length`` tokens, as fairseq collates them.

        ``ragged``: of ``length`` tokens and less, down to one.
        """
        draw, words = random.Random(1), self.task.target_dictionary

        def sentence(number: int) -> Tensor:
            shorter = draw.randrange(length) if ragged and number else 0
            tokens = [draw.randrange(words.nspecial, len(words)) for _ in range(length - 1 - shorter)]
            return torch.tensor([*tokens, words.eos()])

        sources, targets = ([sentence(number) for number in range(sentences)] for _ in range(2))
        sizes = [[len(tokens) for tokens in side] for side in (sources, targets)]
        pairs = LanguagePairDataset(sources, sizes[0], words, targets, sizes[1], words)
        sample = pairs.collater([pairs[index] for index in range(sentences)])
        return utils.move_to_cuda(sample) if self.device.type == "cuda" else sample

    def update(self, loss_of: Callable[..., Any], sample: Dict[str, Any]) -> Callable[[], None]:
        """One update on ``sample``: forward, backward and the optimizer's step."""

        def call() -> None:
            self.optimizer.zero_grad()
            loss_of(self.model, sample)[0].backward()
            self.optimizer.step()

        return call


def over_incremental_state(criterion: nn.Module) -> Callable[..., Any]:
    """The loss of ``criterion``, a standard one, on what fairseq's own decoding steps generate greedily."""
    greedy = rollout.Sampler(criterion.symbols.forbidden)

    def loss_of(model: nn.Module, sample: Dict[str, Any]):
        def substitute(gold_inputs: Tensor, encoder_out: Any, _extra: Dict[str, Any]):
            predictions = rollout.free_running(
                model.decoder, gold_inputs, encoder_out, greedy, criterion.symbols.pad, engine=IncrementalSteps
            )
            generated = tensors.replaceable(gold_inputs, criterion.symbols.pad)
            return tensors.replace(gold_inputs, predictions, generated), encoder_out

        with decoder_reads(model.decoder, substitute):
            return criterion(model, sample)

    return loss_of


def uncached_back_propagation(criterion: nn.Module) -> Callable[..., Any]:
    """Loss of free-running generation by steps that keep nothing and all carry gradient: a forward of every prefix."""
    greedy = rollout.Sampler(criterion.symbols.forbidden)

    def loss_of(model: nn.Module, sample: Dict[str, Any]):
        net_input, target = sample["net_input"], sample["target"]
        encoder_out = model.encoder(net_input["src_tokens"], src_lengths=net_input["src_lengths"])
        inputs, logits = net_input["prev_output_tokens"][:, :1], []
        for _ in range(target.size(1)):
            output, _ = model.decoder(inputs, encoder_out=encoder_out)
            logits.append(output[:, -1:])
            chosen = greedy(output[:, -1].detach().clone())
            inputs = torch.cat([inputs, chosen.unsqueeze(1)], dim=1)
        lprobs = model.get_normalized_probs((torch.cat(logits, dim=1), None), log_probs=True)
        return criterion.gold_targets.losses(lprobs, target, reduce=True)

    return loss_of


def measure_updates(
    bench: Bench, sentences: int, length: int, rounds: int, uncached: bool = True
) -> Dict[str, Dict[str, Any]]:
    """Every strategy and the peers, one update on the same batch; :data:`UNCACHED` only if ``uncached``."""
    sample = bench.batch(sentences, length)
    names = [name for name in VARIANTS if GRAPHS not in name or bench.device.type == "cuda"]
    if next(bench.model.parameters()).dtype == torch.float16:  # refused over such weights
        names = [name for name in names if BF16_ROLLOUT not in name]
    variants = {name: bench.update(bench.criterion(VARIANTS[name], sentences // 2), sample) for name in names}
    variants[INCREMENTAL] = bench.update(over_incremental_state(bench.criterion(VARIANTS[STANDARD])), sample)
    measured = measure(variants, rounds, bench.device)
    if not uncached:
        return measured
    # apart: its rounds take so long that a machine has time to change
    slow = bench.update(uncached_back_propagation(bench.criterion(VARIANTS[STANDARD])), sample)
    pair = measure({STANDARD: variants[STANDARD], UNCACHED: slow}, min(rounds, 3), bench.device)
    return {**measured, UNCACHED: pair[UNCACHED]}


def measure_rollout(bench: Bench, sentences: int, length: int, rounds: int) -> Dict[str, Dict[str, Any]]:
    """Generating tokens only: one parallel pass, the engine, and fairseq's incremental steps."""
    net_input = bench.batch(sentences, length)["net_input"]
    words = bench.task.target_dictionary
    greedy, padding = rollout.Sampler(Symbols.of(words).forbidden), words.pad()
    decoder, gold_inputs = bench.model.decoder, net_input["prev_output_tokens"]
    with torch.no_grad():
        encoder_out = bench.model.encoder(net_input["src_tokens"], src_lengths=net_input["src_lengths"])

    def free_running(**how) -> Tensor:
        return rollout.free_running(decoder, gold_inputs, encoder_out, greedy, padding, **how)

    variants = {
        "parallel": lambda: rollout.teacher_forced(decoder, gold_inputs, encoder_out, greedy),
        "engine": free_running,
        "incremental": lambda: free_running(engine=IncrementalSteps),
    }
    if bench.device.type == "cuda":
        variants[GRAPHS] = lambda: free_running(cuda_graphs=True)
    return measure(variants, rounds, bench.device)


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int = 2048) -> float:
    """GFLOP/s of the product of two square matrices."""
    one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return measure({"": lambda: one @ other}, 7, device)[""]["gflops"]


def _rate(it: Dict[str, Any]) -> str:
    return "unknown" if it["gflops"] is None else f"{it['gflops']:.0f}"


def table_of_updates(measured: Dict[str, Dict[str, Any]]) -> str:
    lines = [
        "| update | median (s) | spread | x standard | peak memory (MiB) | x standard | GFLOP/s |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    standard = measured[STANDARD]
    for name, it in measured.items():
        lines.append(
            f"| {name} | {it['seconds']:.3f} | {it['spread']:.0%} | {it['ratio']:.2f} "
            f"| {it['peak_mib']:.0f} | {it['peak_mib'] / standard['peak_mib']:.2f} | {_rate(it)} |"
        )
    tenth = at_share(measured[EVERY_UPDATE]["ratio"], 0.1)
    return "\n".join([*lines, "", f"generative at the default ratio of 0.1 (computed from the above): {tenth:.2f}"])


def at_share(ratio: float, share: float) -> float:
    """What an update costs on average, times standard, where a ``share`` of the updates cost ``ratio``."""
    return 1 + share * (ratio - 1)


def judged(measured: Dict[str, Dict[str, Any]]) -> List[Dict[str, Any]]:
    """What :func:`measure_updates` found against :data:`TARGETS`."""
    verdicts = []
    for name, share, most in TARGETS:
        found = at_share(measured[name]["ratio"], share) if name in measured else None
        verdict = "not measured" if found is None else "met" if found <= most else "missed"
        verdicts.append({"update": name, "share": share, "measured": found, "at most": most, "verdict": verdict})
    return verdicts


def table_of_rollouts(measured: List[Dict[str, Any]]) -> str:
    ways = {"engine": "engine", GRAPHS: "its graphs", "incremental": "incremental_state"}
    ways = {way: title for way, title in ways.items() if way in measured[0]}
    heads = ["sentences", "length", "vocabulary", "parallel pass (s)"]
    heads += [head for title in ways.values() for head in (f"{title} (s)", "x parallel")]
    lines = [f"| {' | '.join(heads)} | engine GFLOP/s |", "|---:" * (len(heads) + 1) + "|"]
    for it in measured:
        cells = [it["sentences"], it["length"], it["vocabulary"], f"{it['parallel']['seconds']:.3f}"]
        cells += [cell for way in ways for cell in (f"{it[way]['seconds']:.3f}", f"{it[way]['ratio']:.2f}")]
        lines.append(f"| {' | '.join(map(str, cells))} | {_rate(it['engine'])} |")
    return "\n".join(lines)


def machine(device: torch.device) -> str:
    """What was measured on, in a line."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{torch.get_num_threads()} threads, {name}, torch {torch.__version__}"
