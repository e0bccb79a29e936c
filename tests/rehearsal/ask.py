"""Runs a module on the card of a server that is up: `python -m tests.rehearsal.ask SOCKET MODULE [ARGUMENT ...]`.

What `python -m MODULE` would be on a machine with that card, without the minute that importing the stack takes. The
module runs in a process forked from the server; it has this process's open files, and dies with it.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import select
import signal
import sys
import time
from multiprocessing.connection import Client, Connection
from multiprocessing.reduction import send_handle
from pathlib import Path

from tests.rehearsal.request import Request, Settings

START_S = 300
FORWARDED = signal.SIGHUP, signal.SIGINT, signal.SIGTERM
PYTHON = "REHEARSAL_PYTHON"
"""Environment variable: what takes Python's place in the processes that the module starts."""


def main(address: str, module: str, *arguments: str) -> int:
    """Asks, waits, and returns the module's exit code."""
    asked, files = (os.getpid(), module, arguments), _inherited()
    settings = Settings(env=dict(os.environ))
    unused = str(Path(address).with_name("output.log"))
    request = Request("tests.rehearsal.ask:serve", asked, settings, str(Path.cwd()), unused, files)
    with _connected(address) as connection:
        connection.send(request)
        child = connection.recv()
        for number in files:
            send_handle(connection, number, child)
        for number in FORWARDED:
            signal.signal(number, lambda number, _: os.kill(child, number))
        try:
            answer = connection.recv()
        except EOFError:
            return 128 + signal.SIGKILL
    sys.stderr.write(answer.error)
    return 1 if answer.error else int(answer.result or 0)


def _connected(address: str) -> Connection:
    """Waits for a server that is not up yet."""
    end = time.monotonic() + START_S
    while not Path(address).exists() and time.monotonic() < end:
        time.sleep(0.1)
    return Client(address, "AF_UNIX")


def serve(caller: int, module: str, arguments: tuple[str, ...]) -> None:
    """Runs the module in this forked process."""
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    _die_with(caller)
    sys.executable = os.environ.get(PYTHON, sys.executable)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _inherited() -> tuple[int, ...]:
    """Returns the numbers of the files that who started this process has passed to it; its own are not inheritable."""
    found = []
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # the listing's own
            if os.get_inheritable(number):
                found.append(number)
    return tuple(sorted(found))


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
