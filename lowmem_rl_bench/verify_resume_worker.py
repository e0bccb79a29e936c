"""One life of the run that `verify_resume` kills: begun, or gone on with, in a process of its own.

Where processes are forked from a server this module is loaded there once, and with it the training stack: a life then
begins in a second instead of ten. Its code is the same.
"""

import contextlib
import os
from pathlib import Path

from lowmem_rl.config.compose import resolve
from lowmem_rl.engine.policy import import_unsloth
from lowmem_rl.storage.run_dir import RunDir

with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
    import_unsloth()
    from lowmem_rl.checkpointing.resume_config import read_composed
    from lowmem_rl.entrypoints import train as story


def run_attempt(out: Path, settings: tuple[str, ...], *, is_first: bool) -> None:
    """Runs the tiny training in `out` until its end, or until it is killed."""
    if is_first:
        story.run(resolve(preset="tiny-cpu", settings=settings), out, force=True)
    else:
        story.resume(read_composed(RunDir(out)), out, force=True)
