"""Loads the stack on a simulated card once, then forks for each rehearsal.

    python -m tests.rehearsal.server KEY SOCKET OWNER LOCK

It ends after the process OWNER and keeps the open file LOCK locked. Importing Unsloth takes most of a tiny rehearsal's
time. KEY is a card of `lowmem_rl.models.hardware.CARDS`, `cpu` for Unsloth's CPU backend, `plain` for transformers,
PEFT and TRL without Unsloth, also on the CPU, or `math` for Math-Verify alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import select
import signal
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, Listener
from multiprocessing.reduction import recv_handle

from tests.rehearsal.request import Request

CPU, PLAIN, MATH = WITHOUT_CARD = "cpu", "plain", "math"


def main(key: str, address: str, owner: str, lock: str) -> None:
    """Serves until it is ended, or its owner has. The file `lock` is locked as long as this process is there."""
    die_with(int(owner), int(lock))
    _load(key)
    with Listener(address + ".new", "AF_UNIX") as listener:
        os.rename(address + ".new", address)  # it is there when it listens
        while True:
            with contextlib.suppress(EOFError, OSError), listener.accept() as connection:  # who asked may have left
                _reap()
                _fork(listener, int(lock), connection, connection.recv())


def die_with(other: int, *unneeded: int) -> None:
    """Leaves a process that ends this one as soon as the other has ended; it closes the files that it does not need."""
    watched = os.getpid()
    if os.fork():
        return
    for file in unneeded:
        os.close(file)
    with contextlib.suppress(ProcessLookupError):  # one of them has ended already
        select.select([os.pidfd_open(process) for process in (other, watched)], [], [])
    with contextlib.suppress(ProcessLookupError):
        os.kill(watched, signal.SIGKILL)
    os._exit(0)


def _load(key: str) -> None:
    if key == MATH:
        load_math()
        return
    if key not in WITHOUT_CARD:
        from tests.rehearsal.card.install import install

        install(key)
    import torch

    torch.set_num_threads(1)
    with _no_backward():
        load_plain() if key == PLAIN else load()
    gc.freeze()  # each collection of a child would else look at all modules again: a second, a dozen times a run


def load() -> None:
    """Imports what every rehearsal uses."""
    from tests.rehearsal.card.install import load_stack

    load_stack()
    import trl  # noqa: F401

    import lowmem_rl.entrypoints.train  # noqa: F401


def load_plain() -> None:
    """Imports what exports are read with, and what runs of plain TRL use."""
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401
    from trl import GRPOConfig, GRPOTrainer  # noqa: F401

    import lowmem_rl.export.plain_worker  # noqa: F401


def load_math() -> None:
    """Imports what answers are compared with, and no torch: a worker of `verify.pool` may take 2 GiB of addresses."""
    from lowmem_rl.verify.pool_worker import WARM_UP, load_math_verify

    same = load_math_verify()
    for pair in WARM_UP:
        same(*pair)
    gc.freeze()


def _fork(listener: Listener, lock: int, connection: Connection, request: Request) -> None:
    child = os.fork()
    if child:
        connection.send(child)
        return
    os.setsid()  # what it starts ends with it (`Stage`)
    with contextlib.suppress(BaseException):
        from tests.rehearsal.child import answer

        listener._listener._socket.close()  # close() would unlink the path  # type: ignore[attr-defined]
        os.close(lock)
        connection = Connection(_out_of_the_way(connection.fileno()))
        _take(connection, request.files)
        connection.send(answer(request))
    os._exit(0)


def _take(connection: Connection, numbers: Sequence[int]) -> None:
    """Receives open files and gives them these numbers."""
    for number, file in [(number, _out_of_the_way(recv_handle(connection))) for number in numbers]:
        os.dup2(file, number)
        os.close(file)


def _out_of_the_way(file: int) -> int:
    """Returns a copy under a number that is above those of a caller."""
    return fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, 512)


def _reap() -> None:
    """Collects children that have ended; others continue, because a rehearsal may ask for one more."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


@contextlib.contextmanager
def _no_backward() -> Iterator[None]:
    """Refuses a backward before the fork: it would start the engine's threads, which no child may use."""
    import torch

    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no backward before the fork")

    plain = torch.autograd.graph._engine_run_backward
    torch.autograd._engine_run_backward = torch.autograd.graph._engine_run_backward = refuse
    try:
        yield
    finally:
        torch.autograd._engine_run_backward = torch.autograd.graph._engine_run_backward = plain


if __name__ == "__main__":
    main(*sys.argv[1:])
