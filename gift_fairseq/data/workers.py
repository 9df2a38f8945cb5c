"""Work that is handed to several processes, in order, in memory that does not grow with it."""

import contextlib
import multiprocessing
import queue
import signal
import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Callable, Iterable, Iterator, List, Sequence

from gift_fairseq.errors import UserError

Submit = Callable[[Callable, Any], Future]  # of work and an item


def in_order(submit: Submit, work: Callable, items: Iterable, ahead: int) -> Iterator:
    """``work(item)`` of every item, in order; at most ``ahead`` items are read before their results are taken.

    An executor's own ``map`` reads all items as fast as it can, which would hold a corpus in memory.
    """
    pending: deque = deque()
    for item in items:
        pending.append(submit(work, item))
        if len(pending) >= ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


@contextlib.contextmanager
def workers(count: int, start: Callable, *arguments: Any) -> Iterator[Submit]:
    """Hands work to ``count`` processes, each of which begins with ``start(*arguments)``; they end with the block.

    :class:`UserError` from the result of work whose process has ended early.

    Each process has a pipe of its own, which ends when the process does. Python's pools share one: there the parent
    waits forever for the rest of an answer whose process was killed while it wrote.
    """
    idle: queue.SimpleQueue = queue.SimpleQueue()
    processes: List[multiprocessing.Process] = []
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            near, far = multiprocessing.Pipe()
            stack.enter_context(near)
            processes.append(multiprocessing.Process(target=_serve, args=(near, far, start, *arguments)))
            processes[-1].start()
            far.close()  # that of the process alone is left
            idle.put(near)
        threads = stack.enter_context(ThreadPoolExecutor(count))
        stack.callback(_end, processes)
        # at Python's own 5 ms a thread would wait for the one that writes, several times an answer, its process idle
        stack.callback(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(0.0005)
        yield partial(threads.submit, _ask, idle, count)


def _ask(idle: queue.SimpleQueue, count: int, work: Callable, item: Any) -> Any:
    """``work(item)``, by the next process that has nothing to do."""
    connection = idle.get()
    try:
        connection.send((work, item))
        answer = connection.recv()
    except (EOFError, OSError):
        raise UserError(
            f"--workers is {count}, but one of them has ended early: its own error stands above, unless it was killed, "
            "as where memory is out; give fewer"
        ) from None
    finally:
        idle.put(connection)
    if isinstance(answer, UserError):
        raise answer
    return answer


def _serve(near: Connection, far: Connection, start: Callable, *arguments: Any) -> None:
    """What a process does: it answers what it is asked until the parent is no more."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # sent to a group, they reach the parent too, which ends this
    near.close()  # else it would never see the parent's end
    start(*arguments)
    with contextlib.suppress(EOFError, OSError):
        while True:
            work, item = far.recv()
            try:
                answer = work(item)
            except UserError as error:
                answer = error
            far.send(answer)


def _end(processes: Sequence[multiprocessing.Process]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
