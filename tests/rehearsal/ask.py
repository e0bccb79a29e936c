"""Runs a module on the card of a server that is up: `python -m tests.rehearsal.ask SOCKET MODULE [ARGUMENT ...]`.

What `python -m MODULE` would be on a machine with that card, without the minute that importing the stack takes. The
module runs in a process forked from the server; it reads and writes this process's streams, and dies with it.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import select
import signal
import sys
from multiprocessing.connection import Client
from pathlib import Path

from tests.rehearsal.request import Request, Settings


def main(address: str, module: str, *arguments: str) -> int:
    """Asks, waits, and returns the module's exit code."""
    output = Path(address).with_name(f"asked-{os.getpid()}.log")
    asked = (os.getpid(), module, arguments)
    request = Request("tests.rehearsal.ask:serve", asked, Settings(env=dict(os.environ)), str(Path.cwd()), str(output))
    with Client(address, "AF_UNIX") as connection:
        connection.send(request)
        connection.recv()
        try:
            answer = connection.recv()
        except EOFError:
            return 128 + signal.SIGKILL
    output.unlink(missing_ok=True)
    sys.stderr.write(answer.error)
    return 1 if answer.error else int(answer.result or 0)


def serve(caller: int, module: str, arguments: tuple[str, ...]) -> None:
    """Runs the module in this forked process, with the caller's streams."""
    _take_streams(caller)
    _die_with(caller)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _take_streams(caller: int) -> None:
    """Opens them again: an object of another file would still think that it can seek."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.close()
    flags = os.O_RDONLY, os.O_WRONLY | os.O_APPEND, os.O_WRONLY | os.O_APPEND
    for number, flag in enumerate(flags):
        os.dup2(os.open(f"/proc/{caller}/fd/{number}", flag), number)
        os.set_inheritable(number, True)  # dup2 leaves that out if it is the same number
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr


def _die_with(caller: int) -> None:
    """Leaves a process that ends this one as soon as the caller has ended."""
    watched = os.getpid()
    if os.fork():
        return
    ends = [os.pidfd_open(process) for process in (caller, watched)]
    select.select(ends, [], [])
    with contextlib.suppress(ProcessLookupError):
        os.kill(watched, signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
