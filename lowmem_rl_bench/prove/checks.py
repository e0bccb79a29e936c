"""The checks of `prove`, in the order in which they run, and how one is taken."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any

from lowmem_rl.config.run_config import TrainableConfig
from lowmem_rl.errors import UnknownName
from lowmem_rl.reports.escape import shown
from lowmem_rl_bench.prove import check_work, measured_step
from lowmem_rl_bench.prove.outcome import Outcome
from lowmem_rl_bench.prove.processes import Failed, Site
from lowmem_rl_bench.prove.subject import Subject

OK, FAILED, LEFT_OUT = "ok", "failed", "left out"
_LONGEST_RESULT, _LONGEST_FIGURE, _MOST_FIGURES = 2000, 500, 50
_DTYPES = {"bf16": "bfloat16", "fp16": "float16"}


def _nothing(site: Site, subject: Subject) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a card."""

    name: str
    about: str
    limit_s: float
    work: Callable[[Site, Subject], Outcome]
    why_not: Callable[[Site, Subject], str] = _nothing
    """Returns why it cannot run on this card, "" if it can."""


def _lacks_bf16(site: Site, subject: Subject) -> str:
    return "" if subject.card.has_bf16 else f"{subject.card.name} has no bfloat16"


def _no_memory_step(site: Site, subject: Subject) -> str:
    return subject.why_not(site.folder)


def _no_speed_step(site: Site, subject: Subject) -> str:
    if subject.config.trainable.model_copy(update={"layers": "all"}) != TrainableConfig():
        return f"{subject.preset} trains more than adapters, which Unsloth's trainer does not"
    return subject.why_not(site.folder)


def _main_jobs() -> Iterator[Check]:
    for bits in (4, 16):
        for short, dtype in _DTYPES.items():
            about = f"the main job in {bits} bit and {dtype}"
            why_not = _lacks_bf16 if dtype == "bfloat16" else _nothing
            work = partial(check_work.main_job, bits=bits, dtype=dtype)
            yield Check(f"main-{bits}bit-{short}", about, 420, work, why_not)


CHECKS: tuple[Check, ...] = (
    *_main_jobs(),
    Check("sampler", "our sampler against generate, token by token", 300, check_work.sampler),
    Check("memory", "the preset's longest step, by phase", 1800, measured_step.memory, _no_memory_step),
    Check("step", "seconds a step against Unsloth's defaults", 1800, measured_step.step, _no_speed_step),
    Check("out-of-memory", "the card becomes too small within a step", 300, check_work.out_of_memory),
    Check("resume", "killed with SIGKILL, resumed and compared", 600, check_work.resume),
    Check("export", "the exported adapter against the trained model", 600, check_work.export),
)


def chosen(names: Sequence[str]) -> list[Check]:
    """Returns the checks whose names begin so, all if none is named. Raises `UnknownName`."""
    for name in names:
        if not any(check.name.startswith(name) for check in CHECKS):
            raise UnknownName("check", name, [check.name for check in CHECKS])
    return [check for check in CHECKS if not names or check.name.startswith(tuple(names))]


def taken(check: Check, site: Site, subject: Subject) -> tuple[dict[str, Any], dict[str, Any]]:
    """Runs a check within its time. Returns its entry in the record, and what it measured of the preset."""
    began = time.monotonic()
    try:
        status, result, found, parts = _run(check, site.until(check.limit_s), subject)
    except Exception as error:  # noqa: BLE001  # any error of a check leaves the card to the others
        reason = str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
        seen = dict(error.found or {}) if isinstance(error, Failed) else {}
        parts = {name: seen.pop(name) for name in ("memory", "step") if name in seen}
        status, result, found = FAILED, site.without_paths(reason), seen
    entry = {
        "name": check.name,
        "status": status,
        "seconds": round(time.monotonic() - began, 1),
        "result": shown(result, _LONGEST_RESULT),
        "figures": dict(list(_figures(found))[:_MOST_FIGURES]),
    }
    return entry, parts


def _run(check: Check, site: Site, subject: Subject) -> tuple[str, str, Mapping[str, Any], dict[str, Any]]:
    if why_not := check.why_not(site, subject):
        return LEFT_OUT, why_not, {}, {}
    outcome = check.work(site, subject)
    return OK, outcome.result, outcome.found, outcome.parts


def _figures(found: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yields figures by dotted name: numbers, short texts, lists of them. A number that is not finite is a text."""
    if isinstance(found, Mapping):
        for name, value in found.items():
            yield from _figures(value, f"{place}.{name}" if place else str(name))
    elif isinstance(found, list | tuple):
        yield place, [_figure(value) for value in found[:100]]
    else:
        yield place, _figure(found)


def _figure(value: Any) -> Any:
    if isinstance(value, bool | int) or value is None or (isinstance(value, float) and isfinite(value)):
        return value
    return shown(value, _LONGEST_FIGURE)
