"""Symbolic verdicts in workers that can be killed."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lowmem_rl.verify import verify
from lowmem_rl.verify.fork_server import MEMORY_LIMIT_BYTES
from lowmem_rl.verify.pool import TIME_LIMIT_S, ForkServer, Worker, WorkerDied, pool

pytest.importorskip("math_verify")

EQUAL = ("\\tan^2 x + 1", "\\sec^2 x")
ENDLESS = ("\\sum_{n=1}^{10^9} \\sin n", "7")


@pytest.fixture(scope="module")
def nursery() -> Iterator[ForkServer]:
    nursery = ForkServer()
    yield nursery
    nursery.close()


@pytest.fixture
def hatch(nursery: ForkServer) -> Iterator[Callable[[], Worker]]:
    """Hatches workers that end with the test."""
    workers: list[Worker] = []

    def hatch() -> Worker:
        workers.append(nursery.hatch())
        return workers[-1]

    yield hatch
    for worker in workers:
        worker.kill()


@pytest.mark.parametrize(
    ("given_answer", "gold", "equal"),
    [
        ("\\sec^2 x", "\\tan^2 x + 1", True),
        ("1.414214", "\\sqrt{2}", True),
        ("1.414", "\\sqrt{2}", False),
        ("1+\\sqrt{19}, 1-\\sqrt{19}", "1 \\pm \\sqrt{19}", True),
        ("3 < x \\le 4", "(3, 4]", True),
        ("\\log_2 9", "3", False),
        ("__import__('os').getpid()", "0", False),
    ],
)
def test_what_needs_algebra_is_judged_by_a_worker(given_answer: str, gold: str, equal: bool) -> None:
    assert verify(given_answer, gold) is equal


def test_an_endless_answer_is_unequal_in_a_second_and_harms_no_later_one() -> None:
    assert verify(*EQUAL)
    began = time.monotonic()
    assert not verify(*ENDLESS)
    assert time.monotonic() - began < TIME_LIMIT_S + 0.2
    assert pool().same("\\cos 2x", "1-2\\sin^2 x")


def test_a_time_limit_holds_off_the_main_thread() -> None:
    assert pool().same("x", "x")
    verdicts: list[bool] = []
    threads = [threading.Thread(target=lambda: verdicts.append(pool().same(*ENDLESS))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert verdicts == [False] * 3


def test_a_crashed_worker_is_told_and_the_next_one_works(hatch: Callable[[], Worker]) -> None:
    worker = hatch()
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerDied, match="died over the answer 'x'"):
        worker.ask("x", "x", 1)
    assert hatch().ask("x+x", "2x", 1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_has_a_memory_limit(hatch: Callable[[], Worker]) -> None:
    worker = hatch()
    assert worker.ask("x+x", "2x", 1)
    limits = Path(f"/proc/{worker.pid}/limits").read_text().splitlines()
    assert next(line for line in limits if line.startswith("Max address space")).split()[3] == str(MEMORY_LIMIT_BYTES)


def test_a_nursery_that_is_gone_is_noticed() -> None:
    nursery = ForkServer()
    nursery.hatch().kill()
    nursery.process.kill()
    nursery.process.wait()
    with pytest.raises(OSError, match="ended|pipe|reset"):
        nursery.hatch()
    nursery.close()
