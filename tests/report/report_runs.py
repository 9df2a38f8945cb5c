"""Hand-made folders of runs for the tests of the report, and the report on them."""

import json
import random

from gift_fairseq.evaluation import scores
from gift_fairseq.report.folder import write_report
from gift_fairseq.runs import RunFolder

SENTENCES = 60
EVIL = "<script>alert(1)</script> & \"quotes\" '$x$'"


def references():
    draw = random.Random(5)
    return [" ".join(f"wort{draw.randrange(30)}" for _ in range(draw.randrange(6, 30))) for _ in range(SENTENCES)]


def hypotheses(wrong, seed):
    draw = random.Random(seed)
    return [" ".join(w if draw.random() > wrong else "falsch" for w in line.split()) for line in references()]


def log_line(epoch, update, seconds=10, memory=100, peak=150, nll=2.0, wps=1000):
    """The lines of an epoch, as fairseq writes them: numbers as text."""
    train = {"train_loss": 1, "train_num_updates": update, "train_train_wall": seconds, "train_wps": wps}
    train.update(train_mem_mib=memory, train_peak_mem_mib=peak)
    valid = {"valid_loss": nll + 1, "valid_nll_loss": nll, "valid_num_updates": update}
    inner = {"update": epoch - 0.5, "nll_loss": nll + 0.5, "num_updates": max(1, update - 1)}
    return "".join(
        json.dumps({"epoch": epoch, **{key: str(value) for key, value in entry.items()}}) + "\n"
        for entry in (inner, valid, train)
    )


def make_run(root, name, options=None, log="", outputs=None, data=None):
    """A run's folder, scored as the command evaluate does it; ``options`` are the typed ones of fairseq."""
    run = root / "runs" / name
    (run / "generate").mkdir(parents=True)
    if options:
        record = {"command": "finetune", "words": ["fairseq-train", str(data)], "fairseq": options, "commit": "abc"}
        record["versions"] = ["torch==2.13.0", "sacrebleu==2.6.0"]
        (run / "run.json").write_text(json.dumps(record))
    if log:
        (run / "train.log").write_text("{'_name': None}\n" + log)
    for column, lines in (outputs or {}).items():
        (run / "generate" / f"{column}.txt").write_text("".join(line + "\n" for line in lines))
    for column in outputs or ():
        scores.write_score(RunFolder(run), column, data)
    return run


def train_options(root, name, criterion="gift_standard", seed=1, updates=3, **own):
    start = None if name == "baseline" else f"{root}/runs/baseline/checkpoints/checkpoint_best.pt"
    trained = {"criterion": criterion, "seed": seed, "max_update": updates, "lr": [5e-4]}
    return {**trained, "finetune_from_model": start, **own}


def make_data(root, sources):
    """What a report reads of a data folder: the raw text of its test set, news."""
    (root / "data" / "raw").mkdir(parents=True)
    (root / "data" / "segmentation.json").write_text('{"src": "en", "tgt": "de", "subword": "bpe"}')
    for language, lines in (("en", sources), ("de", references())):
        (root / "data" / "raw" / f"news.{language}").write_text("".join(line + "\n" for line in lines))


def make_runs(root):
    """A baseline, two seeds of the control and of recurrent, one generative, and two that are not finished."""
    make_data(root, [EVIL if i == 7 else f"word {i} " * (i % 12 + 1) for i in range(SENTENCES)])

    def run(name, wrong, both=True, **what):
        outputs = {"news.beam5": hypotheses(wrong, name)} if wrong is not None else {}
        if name == "generative":
            outputs["news.beam5"][7] = EVIL
        if both and outputs:
            outputs["news.greedy"] = hypotheses(wrong + 0.05, name + "g")
        log = what.pop("log", log_line(1, 3, nll=2.1) + "done training in 3 seconds\n")
        make_run(root, name, train_options(root, name, **what), log, outputs, root / "data")

    whole = log_line(1, 5, 50, 200, 300, 2.0) + log_line(2, 10, 40, 100, 290, 3.0) + "done training\n"
    run("baseline", 0.3, log=whole, updates=10)
    for seed in (1, 2):
        run(f"standard-{seed}", 0.29, seed=seed)
        run(f"recurrent-{seed}", 0.1 if seed == 1 else 0.3, seed=seed, criterion="gift_recurrent", passes=2)
    run("generative", 0.5, both=False, criterion="gift_generative")
    unfinished = log_line(1, 2) + '{"epoch": 1, "train_loss": "1", "train_num_u'
    run("auxiliary", None, criterion="gift_auxiliary", log=unfinished)
    run("recurrent-3", None, seed=3, criterion="gift_recurrent", passes=2)
    exposure = {"position": [1, 2, 3], "tokens": [60, 60, 3], "accuracy": [0.9, None, 0.5], "nll": [1, 1, 1]}
    for name, nll in (("baseline", 1.5), ("recurrent-1", 1.75)):
        (root / "runs" / name / "exposure").mkdir()
        said = {"gold": {"nll": nll}, "teacher_forced": exposure, "free_running": exposure}
        (root / "runs" / name / "exposure" / "news.json").write_text(json.dumps(said))


NAMES = "baseline standard-1 recurrent-1 generative auxiliary standard-2 recurrent-2 recurrent-3".split()


def make_report(root):
    """The folder of the report on all of :func:`make_runs`."""
    write_report(root / "out", EVIL, [root / "runs" / name for name in NAMES])
    return root / "out"
