"""Loads the stack on a simulated card once, then forks for each rehearsal.

    python -m tests.rehearsal.server KEY SOCKET

Importing Unsloth takes most of a tiny rehearsal's time. KEY is a card of `lowmem_rl.models.hardware.CARDS`, or `cpu`
for Unsloth's CPU backend, to compare with.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection, Listener

CPU = "cpu"
PR_SET_PDEATHSIG = 1
"""prctl(2): a signal when the parent ends, however it ends."""


def main(key: str, address: str) -> None:
    """Serves until it is ended, or its parent is gone."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if key != CPU:
        from tests.rehearsal.card.install import install

        install(key)
    import torch

    torch.set_num_threads(1)
    with _no_backward():
        load()
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


def _fork(listener: Listener, connection: Connection, request: object) -> None:
    child = os.fork()
    if child:
        connection.send(child)
        return
    os.setsid()  # what it starts ends with it (`Stage`)
    with contextlib.suppress(BaseException):
        from tests.rehearsal.child import answer

        listener._listener._socket.close()  # close() would unlink the path  # type: ignore[attr-defined]
        connection.send(answer(request))
    os._exit(0)


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
