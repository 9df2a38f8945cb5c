"""The measurement equals a loop over sentences and tokens, one prefix at a time, in float64."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from conftest import ARCHITECTURES, fairseq_train, gift, pair_dataset, sentences
from fairseq import checkpoint_utils
from fairseq.dataclass.configs import GenerationConfig
from naive import EOS, PAD, encode, naive_optimal, next_logits

from gift_fairseq.data import testsets
from gift_fairseq.errors import UserError
from gift_fairseq.evaluation import exposure

LIMIT = 6  # tokens a hypothesis may have before </s> is forced
POSITIONS = 12
LENGTHS = [(5, 6), (3, 4), (6, 2), (2, 7), (9, 9), (4, 5), (7, 8), (3, 3), (1, 1), (8, 4)]


@pytest.fixture(scope="module", params=["transformer_wmt_en_de", "lstm"])
def learnt(request, build):
    """A model that half knows its test set by heart: it ends sentences by itself, too late or never, and errs."""
    built = build(f"{ARCHITECTURES[request.param]} --criterion gift_standard", dropout=0.1)
    dataset = pair_dataset(built.task.target_dictionary, *zip(*sentences(LENGTHS, seed=3)))
    sample = dataset.collater([dataset[i] for i in range(len(dataset))])
    optimizer = torch.optim.Adam(built.model.parameters(), lr=0.02)
    for _ in range({"lstm": 50}.get(request.param, 25)):
        optimizer.zero_grad()
        built.criterion(built.model, sample)[0].backward()
        optimizer.step()
    built.model.eval()
    generator = built.task.build_generator([built.model], GenerationConfig(beam=1, max_len_b=LIMIT))

    def read_both(max_tokens):
        return exposure.read_both(built.task, [built.model], generator, dataset, max_tokens)

    return SimpleNamespace(model=built.model, task=built.task, dataset=dataset, read_both=read_both)


# ---- naive


@torch.no_grad()
def naive_steps(model, dataset, limit):
    """Teacher-forced and free-running: for every sentence, a list of (right, NLL, size of the set) of its steps."""
    gold, own = [], []
    for source, target in zip(dataset.src, dataset.tgt):
        target, row, encoder_out = target.tolist(), [], encode(model, source)
        for t, token in enumerate(target):
            log_probs = next_logits(model, encoder_out, [EOS, *target[:t]]).double().log_softmax(0)
            row.append((log_probs.argmax().item() == token, -log_probs[token].item(), 1))
        gold.append(row)
        row, inputs = [], [EOS]
        while len(inputs) - 1 < limit:
            log_probs = next_logits(model, encoder_out, inputs).double().log_softmax(0)
            optimal = sorted(naive_optimal(inputs[1:], target[:-1]))
            nll = -log_probs[optimal].exp().sum().log().item()
            log_probs[PAD] = -torch.inf
            if len(inputs) == 1:
                log_probs[EOS] = -torch.inf  # fairseq's generator wants one token at least
            inputs.append(log_probs.argmax().item())
            row.append((inputs[-1] in optimal, nll, len(optimal)))
            if inputs[-1] == EOS:
                break
        own.append(row)
    return gold, own


def naive_mean(values):
    values = list(values)
    return sum(values) / len(values) if values else None


def naive_report(gold, own, positions):
    """The report of lists of steps, every number by the words that define it."""
    result = {"sentences": len(gold)}
    for name, curves, rows in (("gold", "teacher_forced", gold), ("own", "free_running", own)):
        steps = [step for row in rows for step in row]
        accuracy = naive_mean(step[0] for step in steps)
        result[name] = {"nll": naive_mean(step[1] for step in steps), "accuracy": accuracy, "tokens": len(steps)}
        at = [[row[p - 1] for row in rows if len(row) >= p] for p in range(1, positions + 1)]
        result[curves] = {"position": list(range(1, positions + 1)), "tokens": [len(steps) for steps in at]}
        for number, key in enumerate(("accuracy", "nll", "set_size")):
            if (curves, key) != ("teacher_forced", "set_size"):
                result[curves][key] = [naive_mean(step[number] for step in steps) for steps in at]
    excess = {"position": list(range(1, positions + 1))}
    for suffix, error in (("", lambda step: step[1]), ("_mistakes", lambda step: 1 - step[0])):
        ratios = []
        for length in range(1, positions + 1):
            sums = []
            for rows in (own, gold):
                means = [naive_mean(error(row[i]) for row in rows if len(row) > i) for i in range(length)]
                sums.append(None if None in means else sum(means))
            ratios.append(sums[0] / (sums[1] / length) if all(sums) else None)
        excess["accumulated" + suffix] = ratios
        percent = [None if r is None else 100 * (r - length) / length for length, r in enumerate(ratios, 1)]
        excess["percent" + suffix] = percent
    result["excess_error"] = excess
    firsts = [([step[0] for step in row].index(False), row) for row in own if not all(step[0] for step in row)]
    behind = [[row[first + k][0] for first, row in firsts if len(row) > first + k] for k in range(1, 21)]
    result["recovery"] = {
        "distance": list(range(1, 21)),
        "tokens": [len(steps) for steps in behind],
        "accuracy": [naive_mean(steps) for steps in behind],
    }
    mean_position = naive_mean(first + 1 for first, _ in firsts)
    result["first_mistake"] = {"share": len(firsts) / len(own), "mean_position": mean_position}
    return result


def assert_same(one, other, rel=1e-9):
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, dict):
            assert_same(value, other[key], rel)
        elif isinstance(value, list):
            assert [v is None for v in value] == [v is None for v in other[key]], key
            assert [v for v in value if v is not None] == pytest.approx([v for v in other[key] if v is not None], rel)
        else:
            assert value == (pytest.approx(other[key], rel) if isinstance(value, float) else other[key]), key


# ---- the measurement


def test_the_whole_measurement_against_the_loop(learnt):
    gold, own = naive_steps(learnt.model, learnt.dataset, LIMIT)
    sizes = {len(row) for row in own}
    assert LIMIT in sizes and min(sizes) < LIMIT  # hypotheses that end by themselves, and others
    steps = [step for row in own for step in row]
    assert max(size for _, _, size in steps) > 1 and {True, False} == {right for right, _, _ in steps}
    expected = naive_report(gold, own, POSITIONS)
    assert any(expected["recovery"]["accuracy"][:3]) and None in expected["recovery"]["accuracy"]
    assert_same(exposure.report(*learnt.read_both(max_tokens=30), POSITIONS), expected)


def test_a_hypothesis_that_is_the_reference(learnt):
    """Its free-running steps are the teacher-forced ones, of sets of one token and all right; nothing exceeds."""
    dataset, task = learnt.dataset, learnt.task
    copy = pair_dataset(dataset.tgt_dict, dataset.src, dataset.tgt)
    gold, own, of_itself, of_copy = (
        exposure.steps_of(
            learnt.model, read, dataset, exposure.batches(task, read, 30, False), free_running=free_running
        )
        for read, free_running in ((dataset, False), (copy, True), (dataset, True), (copy, False))
    )
    assert not gold.optimal.equal(gold.counted)  # an argmax that is wrong
    for one, other in ((own, of_itself), (gold, of_copy)):  # whichever object is read
        assert all(part.equal(same) for part, same in zip(one, other))
    assert own.optimal.equal(own.counted) and own.set_size[own.counted].eq(1).all()
    assert own.counted.equal(gold.counted) and own.nll[own.counted].equal(gold.nll[own.counted])
    report = exposure.report(gold, own, 4)
    assert report["excess_error"]["accumulated"] == pytest.approx([1, 2, 3, 4])
    assert report["excess_error"]["percent"] == pytest.approx([0, 0, 0, 0])
    assert report["excess_error"]["percent_mistakes"] == pytest.approx([-100, -100, -100, -100])
    assert report["first_mistake"] == {"share": 0, "mean_position": None}
    assert set(report["recovery"]["tokens"]) == {0} and set(report["recovery"]["accuracy"]) == {None}


def test_excess_error_by_hand():
    gold = {"position": [1, 2, 3, 4], "nll": [1.0, 1.0, 2.0, 1.0], "accuracy": [1.0, 0.5, 0.5, 1.0]}
    own = {"position": [1, 2, 3, 4], "nll": [1.0, 2.0, 3.0, None], "accuracy": [0.5, 0.5, 0.0, None]}
    excess = exposure.excess_error(gold, own)
    assert excess["accumulated"] == pytest.approx([1, 3 / (2 / 2), 6 / (4 / 3), None])
    assert excess["percent"] == pytest.approx([0, 50, 50, None])
    assert excess["accumulated_mistakes"] == pytest.approx([None, 1 / (0.5 / 2), 2 / (1 / 3), None])
    assert excess["percent_mistakes"] == pytest.approx([None, 100, 100, None])


# ---- the command


@pytest.fixture(scope="module")
def data(binarized, tmp_path_factory):
    """The small corpus as a data folder of scripts/prepare.sh."""
    folder = tmp_path_factory.mktemp("prepared") / "data"
    shutil.copytree(binarized, folder)
    (folder / "raw").mkdir()
    testsets.write_names(folder, ["news"])
    (folder / "segmentation.json").write_text('{"src": "en", "tgt": "de", "subword": "bpe"}')
    (folder / "subwords.codes").write_text("#version: 0.2\na b\n")
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "lstm"
    run.mkdir()
    flags = f"{ARCHITECTURES['lstm']} --criterion gift_standard --max-update 80 --lr 0.02 --disable-validation"
    fairseq_train(data, run / "checkpoints", f"--task gift_translation {flags}")
    return run


@pytest.mark.cli
def test_the_command_against_the_loop(data, run, capsys):
    checkpoint = run / "checkpoints" / "checkpoint_last.pt"
    gift("exposure", "--data", data, "--cpu", "--positions", 7, "--testset", "news,valid", checkpoint)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[:2] for line in lines[-2:]] == [["lstm", "news"], ["lstm", "valid"]]
    models, _, task = checkpoint_utils.load_model_ensemble_and_task([str(checkpoint)])
    for name, subset, size in (("news", "test", 8), ("valid", "valid", 11)):
        found = json.loads((run / "exposure" / f"{name}.json").read_text())
        assert (found.pop("checkpoint"), found.pop("testset")) == ("checkpoints/checkpoint_last.pt", name)
        assert found.pop("updates") == 80
        assert found.pop("seconds") > 0 and found["sentences"] == size
        task.load_dataset(subset)
        dataset = task.dataset(subset)
        expected = naive_report(*naive_steps(models[0].eval(), dataset, 200), 7)
        assert_same(found, expected, rel=1e-4)


def test_a_sentence_that_the_model_cannot_take(learnt, tmp_path):
    with pytest.raises(UserError, match="CHECKPOINT is .*a.pt, which takes 8 target tokens, but news has 9 in a line"):
        exposure.check_lengths(tmp_path / "a.pt", "news", learnt.dataset, (9, 8))
    exposure.check_lengths(tmp_path / "a.pt", "news", learnt.dataset, (9, 9))
