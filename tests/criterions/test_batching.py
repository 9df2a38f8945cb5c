"""Padding, batch shape, accumulation and workers do not change the gradient."""

import pytest
import torch
from conftest import (
    LENGTHS,
    STRATEGIES,
    TRANSFORMER,
    assert_same_gradient,
    batch,
    batch_of,
    fairseq_train,
    loss_and_gradient,
    make,
    sentences,
)
from fairseq.distributed import LegacyDistributedDataParallel, ModuleProxyWrapper
from fairseq.logging import metrics
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from gift_fairseq.criterions.base import GiftCriterion
from gift_fairseq.metrics import take_peak


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("flags", ["", "--sentence-avg", "--ignore-prefix-size 1"])
def test_batched_and_padded_equals_singletons(build, strategy, flags):
    built = build(f"{TRANSFORMER} {STRATEGIES[strategy]} {flags}")
    pairs = sentences(LENGTHS)
    loss, gradient = loss_and_gradient(built, batch(built.task, pairs))
    single_loss, single = loss_and_gradient(built, *(batch(built.task, [pair]) for pair in pairs))
    assert loss == pytest.approx(single_loss, rel=1e-10)
    assert_same_gradient(gradient, single, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_more_padding_adds_nothing(build, strategy):
    """What is logged does not change either."""
    built = build(f"{TRANSFORMER} {STRATEGIES[strategy]} --report-accuracy")
    sample = batch_of(built)
    wider = {**sample, "net_input": dict(sample["net_input"])}
    for holder, key in ((wider, "target"), (wider["net_input"], "prev_output_tokens")):
        holder[key] = torch.nn.functional.pad(holder[key], (0, 4), value=1)
    for one, other in zip(*(built.criterion(built.model, s)[2].items() for s in (sample, wider))):
        if one[0] not in ("mem_in_use", "rollout_seconds"):
            assert float(one[1]) == pytest.approx(float(other[1]), rel=1e-9), one[0]


ANCHOR = "--anchor-weight 0.3 --finetune-from-model {initial}"
WRAPPED = {name: flags for name, flags in STRATEGIES.items() if name != "standard"}
WRAPPED["kl"] = f"{STRATEGIES['risk']} --mle-weight 0.3 --anchor kl {ANCHOR}"
WRAPPED["l2"] = f"{STRATEGIES['generative']} --mle-weight 0.3 --anchor l2 {ANCHOR}"
WRAPPERS = {
    "pytorch_ddp": DistributedDataParallel,
    "legacy_ddp": lambda model: LegacyDistributedDataParallel(model, distributed.group.WORLD),
}


def work(rank, dictionaries, folder):
    """One of two gloo workers: its half of the batch, under both wrappers that fairseq uses; all strategies in turn."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    for strategy, flags in WRAPPED.items():
        for wrapper, wrapped in WRAPPERS.items():
            built = make(dictionaries, f"{TRANSFORMER} {flags.format(initial=folder / 'initial.pt')}")
            plain, built.model = built.model, ModuleProxyWrapper(wrapped(built.model))
            loss, _, _ = built.criterion(built.model, batch(built.task, sentences(LENGTHS)[rank::2]))
            loss.backward()
            if wrapper == "legacy_ddp":
                built.model.all_reduce_grads()
            if rank == 0:
                torch.save({n: p.grad for n, p in plain.named_parameters()}, folder / f"{wrapper} {strategy}.pt")
    with pytest.raises(SystemExit) as refused:
        built = make(dictionaries, f"{TRANSFORMER} {WRAPPED['l2'].format(initial=folder / 'initial.pt')}")
        model = ModuleProxyWrapper(DistributedDataParallel(built.model, find_unused_parameters=True))
        built.criterion(model, batch_of(built))
    (folder / f"l2 of {rank}").write_text(str(refused.value))
    torch.save(peaks_of_two_epochs(rank), folder / f"peaks of {rank}.pt")
    distributed.destroy_process_group()


def peaks_of_two_epochs(rank):
    """For each epoch of three updates: this worker's own peak, the peak that is logged, how many collectives were made.

    The metrics are read as fairseq-train reads them. Another worker has the higher peak in each epoch.
    """
    collectives, all_reduce = [], distributed.all_reduce
    distributed.all_reduce = lambda *args, **kwargs: collectives.append(args) or all_reduce(*args, **kwargs)
    log = {"loss": 1.0, "nll_loss": 1.0, "ntokens": 1, "sample_size": 1, "n_readings": 1}
    found = []
    for epoch in range(2):
        with metrics.aggregate("train"):
            take_peak()
            block = torch.ones((200 if rank == epoch else 1) * 2**18)
            for _ in range(3):
                with metrics.aggregate("train_inner"), metrics.aggregate() as update:
                    GiftCriterion.reduce_metrics([log])
                    update.get_smoothed_values()
                metrics.get_smoothed_values("train_inner")
            del block
            own = metrics.get_smoothed_value("train_inner", "peak_mem_mib")
            found.append((own, metrics.get_smoothed_values("train")["peak_mem_mib"], len(collectives)))
        metrics.reset_meters("train")
        collectives.clear()
    distributed.all_reduce = all_reduce
    return found


@pytest.fixture(scope="module")
def workers(build, dictionaries, tmp_path_factory):
    """The folder with what two workers found: they are started once for all that is asked of them."""
    folder = tmp_path_factory.mktemp("workers")
    initial = build(f"{TRANSFORMER} {STRATEGIES['standard']}", seed=2).model.state_dict()
    torch.save({"model": initial}, folder / "initial.pt")
    multiprocessing.spawn(work, (dictionaries, folder), nprocs=2)
    return folder


@pytest.mark.parametrize("strategy", WRAPPED)
def test_two_workers_equal_one_big_batch_and_accumulation(build, workers, strategy):
    built = build(f"{TRANSFORMER} {WRAPPED[strategy].format(initial=workers / 'initial.pt')}")
    pairs = sentences(LENGTHS)
    _, gradient = loss_and_gradient(built, batch(built.task, pairs))
    _, accumulated = loss_and_gradient(built, *(batch(built.task, pairs[rank::2]) for rank in range(2)))
    assert_same_gradient(gradient, accumulated, rtol=1e-6, atol=1e-9)
    # Both wrappers average over workers; fairseq multiplies by their number again before it divides by sample_size.
    # Workers have fairseq's softmax, which is rounded to float32.
    for wrapper in WRAPPERS:
        theirs = torch.load(workers / f"{wrapper} {strategy}.pt")
        assert_same_gradient(gradient, {name: 2 * part for name, part in theirs.items()}, rtol=1e-4, atol=1e-6)


def test_the_distance_of_the_weights_is_refused_where_unused_ones_have_no_gradient(workers):
    """torch stops with a traceback where a gradient reaches such a weight from outside the forward pass."""
    for rank in range(2):
        message = (workers / f"l2 of {rank}").read_text()
        assert message.startswith("gift_fairseq: error: --anchor is l2") and "--ddp-backend legacy_ddp" in message


def test_peak_memory_is_the_highest_of_two_workers(workers):
    epochs = zip(*(torch.load(workers / f"peaks of {rank}.pt") for rank in range(2)))
    for epoch, ((own, logged, collectives), (other_own, other_logged, other_collectives)) in enumerate(epochs):
        assert logged == other_logged == max(own, other_own) == (own, other_own)[epoch]
        assert abs(own - other_own) > 100 and collectives == other_collectives == 1


@pytest.mark.cli
@pytest.mark.parametrize("task", ["gift_translation", "translation"])
def test_one_update_never_mixes_gold_and_generated(binarized, tmp_path, task):
    """With --update-freq 2 both micro-batches of every second update generate, and none of the others."""
    lines = fairseq_train(
        binarized,
        tmp_path,
        f"{TRANSFORMER} --task {task} --criterion gift_generative --generate-ratio 0.5 --update-freq 2 --max-update 6 "
        "--max-tokens 60 --disable-validation --no-save",
    )
    shares = {int(line["num_updates"]) - 1: line["replaced"] for line in lines if "replaced" in line}
    assert len(shares) == 6
    for update, share in shares.items():
        assert share > 70 if update % 2 else share == 0, update
