"""`lowmem-rl warmup`: the adapter learns gold completions, for a base that never earns a reward."""

from collections.abc import Iterator
from shlex import join
from typing import TYPE_CHECKING

from lowmem_rl_cli import console
from lowmem_rl_cli.options import RunRequest

if TYPE_CHECKING:
    from lowmem_rl.entrypoints.warmup import WarmupResult


def warmup_command(request: RunRequest, *, steps: int, learning_rate: float | None, force: bool, as_json: bool) -> None:
    """Teaches, and prints what comes next."""
    resolved = request.resolve()
    from lowmem_rl.entrypoints.warmup import LEARNING_RATE, warm_up  # it loads torch
    from lowmem_rl_cli.live_view import watched

    rate = LEARNING_RATE if learning_rate is None else learning_rate
    with watched(f"{resolved.preset}: warming up {resolved.config.model.name}") as show:
        done = warm_up(resolved, steps, request.out, learning_rate=rate, listen=show, force=force)
    if as_json:
        console.show_json({"path": str(done.path), "losses": list(done.losses), "examples": done.examples})
    else:
        console.show("\n".join(_lines(done, request)))


def _lines(done: "WarmupResult", request: RunRequest) -> Iterator[str]:
    first, last = done.losses[0], done.losses[-1]
    yield f"{len(done.losses)} steps on {done.examples} gold completions: loss {first:.3f} -> {last:.3f} nats a token."
    yield f"The adapter is in {done.path}. Measure what it gets right, then train from it:"
    named = [] if request.preset is None else ["--preset", request.preset]
    for file in request.config_files:
        named += ["--config", str(file)]
    for setting in request.settings:
        named += ["--set", setting]
    named += ["--task", request.task] if request.task else []
    for command in ("probe", "train"):
        yield "  " + join(["lowmem-rl", command, *named, "--from", str(done.path)])
