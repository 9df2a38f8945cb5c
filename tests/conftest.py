"""What the tests build on: tiny models made by fairseq's own options, and batches made by its own collater."""

import contextlib
import copy
import json
import os
import random
import subprocess
import sys
from argparse import Namespace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import fairseq.utils
import pytest
import torch
from fairseq import checkpoint_utils, options, tasks
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
from fairseq.data import Dictionary, LanguagePairDataset
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq_cli import generate, preprocess, train
from naive import EOS, PAD, WORDS

import gift_fairseq.tasks.gift_translation  # noqa: F401  registers the task, as --user-dir does
from gift_fairseq import cli
from gift_fairseq.training.launch import Machine

ROOT = Path(__file__).parent.parent
PLUGIN = ROOT / "gift_fairseq"
TRANSFORMER = (
    "--arch transformer_wmt_en_de --encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 16 --decoder-embed-dim 16 "
    "--encoder-ffn-embed-dim 32 --decoder-ffn-embed-dim 32 --encoder-attention-heads 2 --decoder-attention-heads 2"
)
MACHINE = Machine(
    patience=0, average=0, precision="fp32", seed=1, gpus=1, on_cpu=True, nodes=1, node_rank=0, master=None,
    tensorboard=False, wandb=None,
)  # fmt: skip
ARCHITECTURES = {
    "transformer_wmt_en_de": TRANSFORMER,
    "transformer_align": TRANSFORMER.replace("transformer_wmt_en_de", "transformer_align"),
    "lightconv": (
        "--arch lightconv --encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 16 --decoder-embed-dim 16 "
        "--encoder-conv-dim 16 --decoder-conv-dim 16 --encoder-ffn-embed-dim 32 --decoder-ffn-embed-dim 32 "
        "--encoder-attention-heads 2 --decoder-attention-heads 2 --encoder-kernel-size-list [3,3] "
        "--decoder-kernel-size-list [3,3] --input-dropout 0"
    ),
    "lstm": "--arch lstm --encoder-embed-dim 16 --decoder-embed-dim 16 --encoder-hidden-size 16 "
    "--decoder-hidden-size 16 --decoder-out-embed-dim 16",
    "fconv": "--arch fconv --encoder-embed-dim 16 --decoder-embed-dim 16 --decoder-out-embed-dim 16 "
    "--encoder-layers [(16,3)]*2 --decoder-layers [(16,3)]*2",
}
STRATEGIES = {
    "standard": "--criterion gift_standard",
    "auxiliary": "--criterion gift_auxiliary --auxiliary-ratio 0.3",
    "recurrent": "--criterion gift_recurrent",
    "generative": "--criterion gift_generative --generate-ratio 1",
    "oracle": "--criterion gift_generative --generate-ratio 1 --targets oracle",
    "best": "--criterion gift_generative --generate-ratio 1 --targets best --candidates-from beam --candidates 3 "
    "--risk-cost chrf --min-score 11 --length-tolerance 0.5",
    "risk": "--criterion gift_risk --generate-ratio 1 --candidates-from beam --candidates 3 --risk-cost chrf",
    "weighted": "--criterion gift_weighted --tailr-gamma 0.3 --weight-floor 0.02",
    "consistency": "--criterion gift_consistency --own-ratio 1 --consistency-weight 2",
}
SAMPLED = {
    "recurrent": "--criterion gift_recurrent --choose sample",
    "generative": "--criterion gift_generative --generate-ratio 1 --choose sample",
    "oracle": "--criterion gift_generative --generate-ratio 1 --choose sample --targets oracle",
    "best": "--criterion gift_generative --generate-ratio 1 --choose sample --targets best --candidates 6 "
    "--risk-cost chrf --min-score 11 --length-tolerance 0.5",
    "risk": "--criterion gift_risk --generate-ratio 1 --candidates 3 --risk-cost chrf",
}
LENGTHS = [(5, 6), (3, 4), (6, 2), (2, 7)]  # of source and target
FAIRSEQS_SOFTMAX = {name: getattr(fairseq.utils, name) for name in ("log_softmax", "softmax")}


def pytest_collection_modifyitems(items):
    """Files that train come first: begun last, one would keep a single worker busy while the others have nothing."""
    training = {item.path for item in items if item.get_closest_marker("system")}
    items.sort(key=lambda item: item.path not in training)


@contextlib.contextmanager
def production_softmax():
    """While this is open, every softmax is fairseq's own again."""
    with pytest.MonkeyPatch.context() as patch:
        for name, function in FAIRSEQS_SOFTMAX.items():
            patch.setattr(fairseq.utils, name, function)
        yield


@pytest.fixture(scope="session", autouse=True)
def softmax_in_double():
    """fairseq rounds every softmax to float32; the comparisons with naive loops need float64 kept."""

    def kept(function):
        def softmax(x, dim, onnx_trace=False):
            return function(x, dim=dim, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)

        return softmax

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fairseq.utils, "log_softmax", kept(torch.log_softmax))
        patch.setattr(fairseq.utils, "softmax", kept(torch.softmax))
        yield


@pytest.fixture(scope="session")
def dictionaries(tmp_path_factory):
    """A folder with the joint dictionary of a language pair of 23 words."""
    words = Dictionary()
    for number in range(WORDS):
        words.add_symbol(f"w{number}", n=100 - number)
    folder = tmp_path_factory.mktemp("dictionaries")
    for language in ("en", "de"):
        words.save(str(folder / f"dict.{language}.txt"))
    return folder


_configurations = {}


def configuration(arguments):
    """``arguments`` as fairseq-train hands them on, but for those of the criterion; most of the time of most tests."""
    criterion = CRITERION_DATACLASS_REGISTRY[arguments.criterion].__dataclass_fields__.keys() - {"sentence_avg"}
    others = {name: value for name, value in vars(arguments).items() if name not in criterion}
    others["criterion"] = "cross_entropy"
    key = repr(sorted(others.items()))
    if key not in _configurations:
        _configurations[key] = convert_namespace_to_omegaconf(Namespace(**others))
    return copy.deepcopy(_configurations[key])


def make(dictionaries, flags, dropout=0.0, seed=1, dtype=torch.float64):
    """Task, model and criterion, as fairseq-train would make them of ``flags`` over the folder ``dictionaries``."""
    command_line = f"{dictionaries} -s en -t de --label-smoothing 0.1 --dropout {dropout} {flags}"
    if "--task" not in flags:
        command_line += " --task gift_translation"
    arguments = options.parse_args_and_arch(options.get_training_parser(), input_args=command_line.split())
    cfg = configuration(arguments)
    torch.manual_seed(seed)
    task = tasks.setup_task(cfg.task)
    model = task.build_model(cfg.model).to(dtype)
    return SimpleNamespace(task=task, model=model.train(), criterion=task.build_criterion(arguments).train())


@pytest.fixture(scope="session")
def build(dictionaries):
    """``build("--flags ...", dropout=0.0)``: :func:`make` over a dictionary of 23 words, in float64."""
    return partial(make, dictionaries)


@pytest.fixture(scope="session")
def binarized(tmp_path_factory):
    """A small corpus, binarized by fairseq-preprocess: the target is the source reversed, in other words."""
    folder = tmp_path_factory.mktemp("corpus with a blank")
    draw = random.Random(4)
    for split, size in (("train", 60), ("valid", 11), ("test", 8)):
        lines = [[f"w{draw.randrange(12)}" for _ in range(draw.randrange(2, 9))] for _ in range(size)]
        (folder / f"{split}.en").write_text("".join(" ".join(line) + "\n" for line in lines))
        (folder / f"{split}.de").write_text("".join(" ".join(w.upper() for w in line[::-1]) + "\n" for line in lines))
    run_tool(
        preprocess,
        *"-s en -t de --joined-dictionary --workers 1".split(),
        *("--trainpref", folder / "train", "--validpref", folder / "valid", "--testpref", folder / "test"),
        *("--destdir", folder / "data"),
    )
    return folder / "data"


def gift(*arguments):
    """The command line of the project, in this process."""
    cli.main([str(argument) for argument in arguments])


def recipe(name, *arguments, **environment):
    """A recipe by bash, as a user runs it."""
    return subprocess.run(
        ["bash", str(ROOT / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def run_tool(tool, *arguments):
    """One of fairseq's commands (a module of fairseq_cli) with the arguments of its command line, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [tool.__name__, *map(str, arguments)])
        tool.cli_main()


def error_of(*arguments):
    """The one sentence in which the command line ends."""
    with pytest.raises(SystemExit) as stopped:
        gift(*arguments)
    message = str(stopped.value)
    assert message.startswith("gift: error: ") and "\n" not in message
    return message


def lines_of(text, kind="H"):
    """What fairseq-generate wrote, in order: the first line of ``kind`` (S: source, H: hypothesis) of each sentence."""
    found = {}
    for line in text.split("\n"):
        if line.startswith(f"{kind}-"):
            number, *_, subwords = line.split("\t")
            found.setdefault(int(number[2:]), subwords)
    assert found and sorted(found) == list(range(len(found)))
    return [found[number] for number in range(len(found))]


def fairseq_generate(folder, data, *arguments):
    """What fairseq-generate writes, with the whole test set in it, which its default batches would not have."""
    run_tool(
        generate,
        *(data, "--user-dir", PLUGIN, "--cpu", "--results-path", folder, *arguments),
        *"--max-tokens 4000 --required-batch-size-multiple 1 --num-workers 0".split(),
    )
    (output,) = folder.glob("generate-*.txt")
    return output.read_text()


def fairseq_train(data, save_dir, flags, *more, cpu=True):
    """fairseq-train with a tiny model, logging every update to ``save_dir``/train.log; returns its lines of JSON."""
    save_dir.mkdir(exist_ok=True)
    log = save_dir / "train.log"
    vars(checkpoint_utils.save_checkpoint).pop("best", None)  # of the training before in this process
    run_tool(
        train,
        *(data, "--user-dir", PLUGIN, "--save-dir", save_dir, "--log-file", log, *more),
        *(["--cpu"] if cpu else []),
        *"--num-workers 0 --optimizer adam --lr 1e-3 --log-format json --log-interval 1".split(),
        *"--max-tokens 200 --no-epoch-checkpoints".split(),
        *flags.split(),
    )
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith('{"epoch"')]
    return [{key: float(value) for key, value in line.items() if value is not None} for line in lines]


def sentences(lengths, seed=1):
    """For each (source length, target length) a pair of random id tensors, each ending in ``</s>``."""
    draw = random.Random(seed)

    def sentence(length):
        return torch.tensor([draw.randrange(4, 4 + WORDS) for _ in range(length - 1)] + [2])

    return [(sentence(source), sentence(target)) for source, target in lengths]


def pair_dataset(words, sources, targets):
    """``sources`` and ``targets`` as a dataset of fairseq's, in their order."""
    sizes = ([len(tokens) for tokens in side] for side in (sources, targets))
    return LanguagePairDataset(sources, next(sizes), words, targets, next(sizes), words, shuffle=False)


def batch(task, pairs):
    """``pairs`` as fairseq's collater pads them: source on the left, target on the right."""
    dataset = pair_dataset(task.target_dictionary, *zip(*pairs))
    return dataset.collater([dataset[i] for i in range(len(pairs))])


def batch_of(built, lengths=LENGTHS, seed=1):
    """:func:`sentences` as a batch for ``built``."""
    return batch(built.task, sentences(lengths, seed))


def loss_and_gradient(built, *samples, update_num=0):
    """Summed loss, as it is logged, and the gradient of every parameter (by name) over ``samples``, accumulated."""
    built.model.zero_grad()
    built.criterion.set_num_updates(update_num)
    total = 0.0
    for sample in samples:
        loss, _, log = built.criterion(built.model, sample)
        loss.backward()
        total += float(log["loss"])
    gradient = {
        name: parameter.grad.clone() for name, parameter in built.model.named_parameters() if parameter.grad is not None
    }
    return total, gradient


assert_same_gradient = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-9)  # by the names of the parameters
assert_equal = partial(torch.testing.assert_close, rtol=0, atol=0)  # of tensors, and what holds them


def difference(one, other):
    """Euclidean distance of two gradients."""
    return sum((one[name] - other[name]).pow(2).sum().item() for name in one) ** 0.5


def often_ending(built):
    """``built`` with a louder ``</s>``: of untrained models' own outputs some end early then, others do not."""
    with torch.no_grad():
        for name, parameter in built.model.named_parameters():
            if name in ("decoder.output_projection.weight", "decoder.embed_out", "decoder.fc3.weight_g"):
                parameter[2] *= 3
    return built


@torch.no_grad()
def that_ends(built, architecture):
    """``built`` with decoder weights under which, untrained, some sentences end and others do not."""
    for name, parameter in built.model.decoder.named_parameters():
        if parameter.dim() > 1:
            parameter.mul_(1.7)
        if name in ("embed_tokens.weight", "output_projection.weight", "embed_out", "fc_out.weight", "fc3.weight"):
            parameter[EOS] *= 5 if architecture.startswith("transformer") else 2.5
    return built


def lengths_for(architecture, lengths=LENGTHS):
    """``lengths``, with the same source for all for fairseq's lightconv, which reads across source padding."""
    return [(5, target) for _, target in lengths] if architecture == "lightconv" else lengths


def in_batch_order(pairs):
    """fairseq's collater sorts them by the length of the source, longest first."""
    return sorted(pairs, key=lambda pair: -len(pair[0]))


# ---- what happens inside a forward


def encoded(built, sample):
    """Gold inputs (B, T) and what the encoder returns, without gradient or dropout."""
    built.model.eval()
    with torch.no_grad():
        encoder_out = built.model.encoder(sample["net_input"]["src_tokens"], sample["net_input"]["src_lengths"])
    return sample["net_input"]["prev_output_tokens"], encoder_out


@contextlib.contextmanager
def watched(decoder):
    """A list that gets what ``decoder`` reads, a tensor (R, L) for each of its calls."""
    read = []
    hook = decoder.register_forward_hook(lambda _module, args, _kw, _out: read.append(args[0]), with_kwargs=True)
    try:
        yield read
    finally:
        hook.remove()


def inputs_read(built, sample, update_num=0):
    """What the decoder reads in one training forward, and what is logged of it."""
    built.criterion.set_num_updates(update_num)
    with watched(built.model.decoder) as read:
        _, _, log = built.criterion(built.model, sample)
    return read[-1], log


def prefixes_of(built):
    """A list that will hold the prefixes of every training forward: for each row its sentence and its tokens."""
    seen, read = [], built.criterion.source.read

    def look(decoding):
        found = read(decoding)
        rows = [[token for token in row if token != PAD] for row in found.next_tokens.tolist()]
        seen.append(list(zip(found.sentences.tolist(), rows)))
        return found

    built.criterion.source.read = look
    return seen


def of_each(prefixes, count):
    """The tokens of one of :func:`prefixes_of`, a list for each of ``count`` sentences."""
    return [[tokens for sentence, tokens in prefixes if sentence == number] for number in range(count)]


# ---- comparisons


def assert_rows(tokens, rows):
    """``tokens`` (B, L) are ``rows``, padded to the longest of them."""
    width = max(map(len, rows))
    assert tokens.tolist() == [row + [PAD] * (width - len(row)) for row in rows]
