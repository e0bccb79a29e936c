"""What a machine does for a study: says what it is, and runs one command to its end."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lowmem_rl._version import __version__
from lowmem_rl.errors import RunDirError
from lowmem_rl.models.hardware import this_machine
from lowmem_rl.storage.disk import write_file
from lowmem_rl.storage.lock import share_lock
from lowmem_rl.telemetry.environment import commit

TOKEN, _CARD = ".shared", ".card"
SAVE_S = 120.0
"""For a run that saves what it has: a step is abandoned, writing a checkpoint takes seconds."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A machine as it counts for a comparison."""

    host: str
    version: str
    commit: str | None
    card: str
    """The driver's name for it, or "cpu"."""
    sees_study: bool
    """It reads in the study's directory what the driving process has written there."""


def node_facts(out: Path, token: str) -> NodeFacts:
    """Returns the facts of the machine that this runs on."""
    try:
        sees_study = (out / TOKEN).read_text("utf-8") == token
    except OSError:
        sees_study = False
    return NodeFacts(socket.gethostname(), __version__, commit(), this_machine().name, sees_study)


def write_token(out: Path) -> str:
    """Writes a text into the study's directory that only machines that share it can read, and returns it."""
    token = os.urandom(16).hex()
    write_file(out / TOKEN, token.encode())
    return token


def set_card(out: Path, card: str | None) -> None:
    """Writes which card a study's runs were made on; None: the first machine that claims it decides."""
    write_file(out / _CARD, card.encode()) if card else (out / _CARD).unlink(missing_ok=True)


def claim_card(out: Path, card: str) -> str:
    """Returns the card that the study runs on: that of the first machine that asks, in one step on a shared disk."""
    mine = out / f"{_CARD}-{os.urandom(8).hex()}"
    write_file(mine, card.encode())
    try:
        with contextlib.suppress(FileExistsError):
            os.link(mine, out / _CARD)
        return (out / _CARD).read_text("utf-8", "replace")
    finally:
        mine.unlink()


def start(arguments: tuple[str, ...], log: Path, env: dict[str, str]) -> "subprocess.Popen[bytes]":
    """Starts a command line of `lowmem-rl` in a session of its own: Ctrl-C reaches it only through `end`.

    Its log stays locked while it runs: a training locks its run directory only after its imports, and until then a
    study that is started again must not start a second one. Raises `RunDirError` if the log cannot be written.
    """
    argv = [sys.executable, "-m", "lowmem_rl", *arguments]
    with _opened(log) as output:
        share_lock(output.fileno())
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **env},
            start_new_session=True,
        )


def _opened(log: Path) -> BinaryIO:
    """Opens a log to append to it, never through a link: a directory from elsewhere may hold one to a file of ours."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        return os.fdopen(os.open(log, flags, 0o644), "ab")
    except OSError as error:
        raise RunDirError(f"{log} cannot be written: {error.strerror}.", hint="Remove it, or make room.") from error


def end(process: "subprocess.Popen[bytes]", wait_s: float = SAVE_S) -> int:
    """Asks a run to save and end, and returns its exit code; kills it if it takes longer."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(wait_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def run_to_end(arguments: tuple[str, ...], log: Path, env: dict[str, str]) -> int:
    """Runs a command line and returns its exit code. If this process is asked to stop, the run saves first."""
    process = start(arguments, log, env)
    try:
        return process.wait()
    except BaseException:
        end(process)
        raise
