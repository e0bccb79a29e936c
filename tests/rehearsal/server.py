"""Loads the stack on a simulated card once, then forks for each rehearsal.

    python -m tests.rehearsal.server KEY SOCKET

Importing Unsloth takes most of a tiny rehearsal's time. KEY is a card of `lowmem_rl.models.hardware.CARDS`, `cpu` for
Unsloth's CPU backend, or `plain` for transformers and PEFT without Unsloth, also on the CPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, Listener
from multiprocessing.reduction import recv_handle

from tests.rehearsal.request import Request

CPU, PLAIN = "cpu", "plain"
PR_SET_PDEATHSIG = 1
"""prctl(2): a signal when the parent ends, however it ends."""


def main(key: str, address: str) -> None:
    """Serves until it is ended, or its parent is gone."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if key not in (CPU, PLAIN):
        from tests.rehearsal.card.install import install

        install(key)
    import torch

    torch.set_num_threads(1)
    with _no_backward():
        load_plain() if key == PLAIN else load()
    gc.freeze()  # each collection of a child would else look at all modules again: a second, a dozen times a run
    with Listener(address, "AF_UNIX") as listener:
        print("ready", flush=True)  # noqa: T201
        while True:
            with contextlib.suppress(EOFError, OSError), listener.accept() as connection:  # who asked may have left
                _reap()
                _fork(listener, connection, connection.recv())


def load() -> None:
    """Imports what every rehearsal uses."""
    from tests.rehearsal.card.install import load_stack

    load_stack()
    import trl  # noqa: F401

    import lowmem_rl.entrypoints.train  # noqa: F401


def load_plain() -> None:
    """Imports what an export is read with."""
    import peft  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

    import lowmem_rl.export.plain_worker  # noqa: F401


def _fork(listener: Listener, connection: Connection, request: Request) -> None:
    child = os.fork()
    if child:
        connection.send(child)
        return
    os.setsid()  # what it starts ends with it (`Stage`)
    with contextlib.suppress(BaseException):
        from tests.rehearsal.child import answer

        listener._listener._socket.close()  # close() would unlink the path  # type: ignore[attr-defined]
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
