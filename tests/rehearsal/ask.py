"""Runs a module on the card of a server that was started: `python -m tests.rehearsal.ask SOCKET MODULE [ARGUMENT ...]`.

What `python -m MODULE` would be on a machine with that card, without the minute that importing the stack takes. The
module runs in a process forked from the server; it has this process's open files, and dies with it. It ends at once,
without functions of `atexit`; if it is killed, the exit code is 137. What libraries but huggingface_hub read of the
environment when they are imported, and hash seeds, are the server's.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing.spawn
import os
import runpy
import signal
import sys
from multiprocessing.connection import Client
from multiprocessing.reduction import send_handle
from pathlib import Path

from tests.rehearsal.request import Request, Settings
from tests.rehearsal.server import die_with
from tests.rehearsal.stage import wait_until_ready

FORWARDED = signal.SIGHUP, signal.SIGINT, signal.SIGTERM
PYTHON = "REHEARSAL_PYTHON"
"""Environment variable: what takes Python's place in the processes that the module starts."""


def main(address: str, module: str, *arguments: str) -> int:
    """Asks, waits, and returns the module's exit code. Raises `RehearsalError` if the server does not come up."""
    wait_until_ready(address)
    asked, files = (os.getpid(), module, arguments), _inherited()
    settings = Settings(env=dict(os.environ))
    unused = str(Path(address).with_name("output.log"))
    request = Request("tests.rehearsal.ask:serve", asked, settings, str(Path.cwd()), unused, files)
    with Client(address, "AF_UNIX") as connection:
        connection.send(request)
        child = connection.recv()
        for number in files:
            send_handle(connection, number, child)
        for number in FORWARDED:
            signal.signal(number, lambda number, _: os.kill(child, number))
        try:
            answer = connection.recv()
        except (EOFError, ConnectionResetError):
            return 128 + signal.SIGKILL
    said = answer.error or (answer.result if isinstance(answer.result, str) else "")
    sys.stderr.write(said)
    return 1 if said else int(answer.result or 0)


def serve(caller: int, module: str, arguments: tuple[str, ...]) -> None:
    """Runs the module in this forked process."""
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace")  # as Python opens it
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    die_with(caller)
    if hub := sys.modules.get("huggingface_hub.constants"):
        importlib.reload(hub)  # reads HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE
    sys.executable = os.environ.get(PYTHON, sys.executable)
    multiprocessing.spawn.set_executable(sys.executable)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _inherited() -> tuple[int, ...]:
    """Returns the numbers of the files that this process was started with; what it opens itself is not inheritable."""
    found = []
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # the listing's own
            if os.get_inheritable(number):
                found.append(number)
    return tuple(sorted(found))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
