"""Worker processes: their answers, their deadlines, and that none is left over."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lowmem_rl.errors import SetupError
from lowmem_rl.workers import JsonWorker, RequestFailed, WorkerFailed

WORKER = """
import os, subprocess, sys, time
from lowmem_rl.errors import SetupError
from lowmem_rl.workers import serve

def answer(request):
    if "refuse" in request:
        raise SetupError("nothing works", hint="try later")
    return eval(request)

serve(answer)
"""
HOLDS_THE_LOCK = "9**9**9**9"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], JsonWorker]]:
    (tmp_path / "answering.py").write_text(WORKER)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    workers: list[JsonWorker] = []

    def start() -> JsonWorker:
        workers.append(JsonWorker("answering", tmp_path / "log", env))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()


def is_running(pid: int) -> bool:
    """Returns whether a process is alive a moment later; one that nobody reaps is not."""
    for _ in range(50):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return False
        if state == "Z":
            return False
        time.sleep(0.1)
    return True


def test_what_is_printed_and_read_is_no_part_of_an_answer(start) -> None:
    worker = start()
    assert worker.ask("os.write(1, b'{\"answer\": 1}\\n') and 'x' * 10**6") == "x" * 10**6
    assert worker.ask("sys.stdin.read()") == ""
    assert worker.last_lines(1) == ['{"answer": 1}']


def test_an_error_of_ours_keeps_its_hint_and_code_and_the_worker(start) -> None:
    worker = start()
    with pytest.raises(RequestFailed, match="nothing works") as caught:
        worker.ask("refuse")
    assert (caught.value.hint, caught.value.code) == ("try later", SetupError.exit_code)
    assert worker.ask("1 + 1") == 2


@pytest.mark.parametrize("request_", ["time.sleep(60)", HOLDS_THE_LOCK])
def test_a_late_worker_is_killed(start, request_: str) -> None:
    worker = start()
    pid = worker.ask("os.getpid()")
    began = time.monotonic()
    with pytest.raises(WorkerFailed, match="not answered for 0.5 s"):
        worker.ask(request_, 0.5)
    assert time.monotonic() - began < 5
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_worker_that_ends_leaves_its_code_and_its_last_lines(start) -> None:
    for request, code in (("os._exit(7)", 7), ("os.kill(os.getpid(), 9)", -9), ("1 / 0", 1)):
        worker = start()
        with pytest.raises(WorkerFailed) as caught:
            worker.ask(request)
        assert caught.value.code == code
    assert worker.last_lines(1) == ["ZeroDivisionError: division by zero"]
    with pytest.raises(WorkerFailed, match="code 1"):
        worker.ask("1")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_a_worker_has_started_ends_with_it(start) -> None:
    worker = start()
    child = worker.ask("subprocess.Popen(['sleep', '60']).pid")
    forked = worker.ask("os.fork() or time.sleep(60)")
    worker.kill()
    assert not is_running(child)
    assert not is_running(forked)


def test_an_interrupted_question_ends_the_worker(start) -> None:
    worker = start()
    assert worker.ask("1") == 1
    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            worker.ask("time.sleep(60)", 30)
    finally:
        signal.signal(signal.SIGALRM, previous)
    with pytest.raises(WorkerFailed):
        worker.ask("1")


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_a_request_that_arrives_during_another_ends_nobody(start) -> None:
    worker = start()
    worker.send("time.sleep(0.5) or 1")
    time.sleep(0.2)  # the worker computes
    worker.send("time.sleep(0.5) or 2")
    assert [worker.receive(5), worker.receive(5)] == [1, 2]


CALLER = """
import sys
from lowmem_rl.workers import JsonWorker
worker = JsonWorker("answering")
print(worker.ask("os.getpid(), subprocess.Popen(['sleep', '60']).pid"), flush=True)
worker.ask(sys.argv[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends it there alone")
@pytest.mark.parametrize("request_", ["time.sleep(60)", HOLDS_THE_LOCK])
def test_a_worker_and_what_it_started_end_with_its_caller(tmp_path: Path, request_: str) -> None:
    (tmp_path / "answering.py").write_text(WORKER)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", CALLER, request_]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as caller:
        assert caller.stdout is not None
        pids = json.loads(caller.stdout.readline())
        time.sleep(0.3)  # the second request is on its way
        caller.kill()
    assert not any(is_running(pid) for pid in pids)


def test_ctrl_c_is_the_caller_s_alone(start) -> None:
    worker = start()
    assert worker.ask("os.getsid(0) == os.getpid()") is True
    os.kill(worker.ask("os.getpid()"), signal.SIGINT)
    with pytest.raises(WorkerFailed) as caught:
        worker.ask("time.sleep(5)")
    assert caught.value.code == -signal.SIGINT
    assert worker.last_lines(1) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_that_does_not_start_leaves_no_file_open(tmp_path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError) as caught:
        JsonWorker("anything", tmp_path / "absent" / "log")
    assert os.listdir("/proc/self/fd") == before  # the traceback in `caught` would keep what was not closed
    del caught
