"""Symbolic verdicts in workers that can be killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lowmem_rl.verify import late_verdicts, verify
from lowmem_rl.verify.pool import CPU_LIMIT_S, WALL_LIMIT_S, Pool, WorkerDied, pool
from lowmem_rl.verify.pool_worker import MEMORY_LIMIT_BYTES
from lowmem_rl.workers import JsonWorker, WorkerFailed

pytest.importorskip("math_verify")

EQUAL = ("\\tan^2 x + 1", "\\sec^2 x")
ENDLESS = ("\\sum_{n=1}^{10^9} \\sin n", "7")
NEEDS_PROC = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ended(pid: int) -> bool:
    """Waits for the end of a process that may be nobody's to reap."""
    for _ in range(50):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def own() -> Iterator[tuple[Pool, int, int]]:
    """A pool with one worker that has answered, the worker's process and the child that computes."""
    own = Pool()
    assert own.same(*EQUAL)
    worker = own._idle[0]._process.pid
    (computing,) = children(worker)
    yield own, worker, computing
    own.close()
    assert worker not in children(os.getpid())
    assert all(map(ended, (worker, computing)))


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
        ("e^{-100} \\sin 2", "e^{-100} \\sin 1", False),
        ("\\frac{1}{\\sqrt{101!}}", "\\frac{1}{\\sqrt{100!}}", False),
        ("\\frac{\\sqrt{102}}{\\sqrt{102!}}", "\\frac{1}{\\sqrt{101!}}", True),
        ("\\cos 70^\\circ", "\\sin 20^\\circ", True),
        ("\\cos 70^\\circ", "\\sin 21^\\circ", False),
    ],
)
def test_what_needs_algebra_is_judged_by_a_worker(given_answer: str, gold: str, equal: bool) -> None:
    assert verify(given_answer, gold) is equal


def test_an_endless_answer_is_late_unequal_and_harms_no_later_one() -> None:
    assert verify(*EQUAL)
    began, late = time.monotonic(), late_verdicts()
    assert not verify(*ENDLESS)
    assert time.monotonic() - began < WALL_LIMIT_S / 2  # the limit is CPU time
    assert not verify(*ENDLESS)
    assert late_verdicts() == late + 2  # a repeated one is counted, too
    assert pool().same("\\cos 2x", "1-2\\sin^2 x")


@pytest.mark.slow
def test_a_time_limit_holds_off_the_main_thread() -> None:
    assert pool().same("x", "x")
    verdicts: list[bool | None] = []
    threads = [threading.Thread(target=lambda: verdicts.append(pool().same(*ENDLESS))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=WALL_LIMIT_S)
    assert verdicts == [None] * 3


@pytest.mark.slow
@NEEDS_PROC
def test_a_busy_machine_changes_no_verdict(own: tuple[Pool, int, int]) -> None:
    """A child that has to wait in the middle of its work for longer than the limit is as right as any."""
    own_pool, _, computing = own
    timers = [
        threading.Timer(0.05, os.kill, (computing, signal.SIGSTOP)),
        threading.Timer(CPU_LIMIT_S + 0.5, os.kill, (computing, signal.SIGCONT)),
    ]
    began = time.monotonic()
    for timer in timers:
        timer.start()
    assert own_pool.same("\\frac{x^2}{9} + \\frac{y^2}{5} = 1", "5x^2 + 9y^2 = 45")
    assert time.monotonic() - began > CPU_LIMIT_S
    for timer in timers:
        timer.join()


@pytest.mark.slow
@NEEDS_PROC
def test_a_crash_is_reported_and_the_next_verdict_comes(own: tuple[Pool, int, int]) -> None:
    own_pool, _, computing = own
    timer = threading.Timer(CPU_LIMIT_S / 4, os.kill, (computing, signal.SIGKILL))
    timer.start()
    with pytest.raises(WorkerDied, match="died over the answer '7'"):
        own_pool.same(*ENDLESS)
    timer.join()
    assert own_pool.same("x+x", "2x")


@pytest.mark.slow
@NEEDS_PROC
@pytest.mark.parametrize("number", [(0,), (1,), (0, 1)], ids=["worker", "child", "both"])
def test_processes_that_are_killed_between_verdicts_cost_none(own: tuple[Pool, int, int], number: tuple[int]) -> None:
    own_pool, *processes = own
    for index in number:
        os.kill(processes[index], signal.SIGKILL)
    assert own_pool.same("x+x", "2x")
    assert not own_pool.same("x+x", "3x")


@pytest.mark.slow
@NEEDS_PROC
def test_a_worker_has_a_memory_limit(own: tuple[Pool, int, int]) -> None:
    limits = Path(f"/proc/{own[2]}/limits").read_text().splitlines()
    assert next(line for line in limits if line.startswith("Max address space")).split()[3] == str(MEMORY_LIMIT_BYTES)


@pytest.mark.slow
def test_a_worker_without_math_verify_ends(tmp_path: Path) -> None:
    (tmp_path / "math_verify.py").write_text("raise ImportError('broken')\n")
    with JsonWorker("lowmem_rl.verify.pool_worker", tmp_path / "log", os.environ | path_with(tmp_path)) as worker:
        with pytest.raises(WorkerFailed, match="ended with code 1"):
            worker.ask([*EQUAL, CPU_LIMIT_S, WALL_LIMIT_S], 60)
        assert worker.last_lines(1) == ["ImportError: broken"]


SCRIPT = """
import sys, threading
from lowmem_rl.verify import late_verdicts, verify
print("once")
verdicts = []
thread = threading.Thread(target=lambda: verdicts.append(verify("\\\\sec^2 x", "\\\\tan^2 x + 1")))
thread.start()
thread.join()
print(verdicts, "torch" in sys.modules)
"""


@pytest.mark.slow
def test_a_script_without_a_guard_runs_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["once", "[True] False"]
    assert done.stderr == ""


def path_with(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
