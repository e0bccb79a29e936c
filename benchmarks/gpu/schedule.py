"""The parts of the first minutes, their order, and how one runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.gpu import parts
from benchmarks.gpu.checks import USAGE, Unready
from benchmarks.gpu.sizes import Size, sizes_for
from lowmem_rl.models.hardware import Machine
from lowmem_rl_bench.prove.processes import Failed, Site, TookTooLong

DONE, FAILED, LEFT_OUT, OUT_OF_TIME = "done", "failed", "left out", "out of time"
REST_BYTES = 2**30
"""Disk space for runs of the embedded model, exports and logs."""
Work = Callable[[Site], dict[str, Any]]


@dataclass(frozen=True)
class Part:
    """One measurement of the card."""

    name: str
    seconds: float
    """Its limit, if the total is 15 minutes."""
    work: Work
    size: Size | None = None
    """The size whose weights it makes or needs."""
    makes_weights: bool = False

    def why_not(self, site: Site) -> str:
        """Returns why it cannot run, "" if it can. Called just before it would run."""
        if self.size is None:
            return ""
        if self.makes_weights:
            return self.size.left_out(site.folder)
        return "" if parts.ready(site.folder, self.size) else "its weights do not exist"


def schedule(machine: Machine, source: str, *, quick: bool) -> Iterator[Part]:
    """Yields the parts, the most important ones first: the smallest size in full before the next one's weights."""
    yield Part("card", 60, partial(parts.card, quick=quick))
    yield Part("does it run", 330, partial(parts.does_it_run, quick=quick))
    small, *larger = sizes_for(machine, quick=quick)
    yield from _measured(small, source, quick=quick)
    speed = parts.speed(quick=quick)
    yield Part(f"step, {small.name}", 240, partial(parts.step, size=small, speed=speed), small)
    yield Part(f"out of memory, {small.name}", 150, partial(parts.out_of_memory, size=small, quick=quick), small)
    for size in larger:
        yield from _measured(size, source, quick=quick)


def _measured(size: Size, source: str, *, quick: bool) -> Iterator[Part]:
    """Yields the parts that every size has."""
    yield Part(f"weights, {size.name}", 120, partial(parts.make_weights, size=size), size, makes_weights=True)
    yield Part(f"memory, {size.name}", 210, partial(parts.memory, size=size, source=source), size)
    speed = parts.speed(quick=quick)
    yield Part(f"decode, {size.name}", 180, partial(parts.decode, size=size, speed=speed), size)


def chosen(every: Sequence[Part], only: Sequence[str]) -> list[Part]:
    """Returns the parts whose names begin so, and the weights that they need; all if none is named.

    Raises `Unready` if no name begins so.
    """
    unknown = [name for name in only if not any(part.name.startswith(name) for part in every)]
    if unknown:
        names = ", ".join(dict.fromkeys(part.name.partition(",")[0] for part in every))
        raise Unready(f"--only {' '.join(unknown)}: no part's name begins so.", f"The parts are {names}.", USAGE)
    wanted = [part for part in every if not only or part.name.startswith(tuple(only))]
    sizes = [part.size for part in wanted if part.size]
    return [part for part in every if part in wanted or (part.makes_weights and part.size in sizes)]


def disk_bytes(wanted: Sequence[Part]) -> int:
    """Returns the most bytes that the parts write: weights of models that fit on the card, and the rest."""
    made = (part.size for part in wanted if part.makes_weights and part.size)
    return REST_BYTES + sum(size.disk_bytes for size in made if not size.too_large())


def taken(part: Part, site: Site, share: float) -> dict[str, Any]:
    """Runs a part within this share of its seconds and returns its entry in the record."""
    began = time.monotonic()
    try:
        found = _run(part, site, share)
    except Exception as error:  # noqa: BLE001  # any error of a part leaves the card's time to the others
        is_late = isinstance(error, TookTooLong) and site.seconds_left <= 0
        reason = f"{'' if isinstance(error, Failed) else type(error).__name__ + ': '}{error}"
        found = {"status": OUT_OF_TIME if is_late else FAILED, "reason": site.without_paths(reason)}
        if isinstance(error, Failed) and error.found:
            found["found"] = dict(error.found)
    return {"name": part.name, "seconds": round(time.monotonic() - began, 1)} | found


def _run(part: Part, site: Site, share: float) -> dict[str, Any]:
    if why_not := part.why_not(site):
        return {"status": LEFT_OUT, "reason": why_not}
    if site.seconds_left <= 0:
        return {"status": OUT_OF_TIME, "reason": "no time was left"}
    return {"status": DONE, "found": part.work(site.until(part.seconds * share))}
