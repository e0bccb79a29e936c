"""The report: one HTML file that asks nobody for anything, opens from disk and shows hostile text as text."""

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

from lowmem_rl.errors import RunDirError
from lowmem_rl.reports.charts import GIB, charts_of
from lowmem_rl.reports.completions import best_and_worst, fixed_prompts
from lowmem_rl.reports.curves import number
from lowmem_rl.reports.record import RunRecord, is_number, read_record
from lowmem_rl.reports.reproduce import command_of
from lowmem_rl.reports.text import one_line
from lowmem_rl.reports.verdict import verdict_of
from lowmem_rl.runs import RunDir

Fact = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Phase:
    """What one phase was predicted to hold; the bar's lengths are shares of the longest, in percent."""

    name: str
    gib: str
    length: float
    terms: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Memory:
    """Predicted by phase, measured beside it: the driver tells the highest of all phases."""

    phases: tuple[Phase, ...]
    facts: tuple[Fact, ...]
    measured: float | None
    """Where the measured peak stands on the bars, in percent."""


def write_report(path: Path, out: Path | None = None) -> Path:
    """Writes the report of a run directory, into report.html there unless `out` is set. Raises `RunDirError`."""
    record = read_record(path)
    target = out or RunDir(path).report
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(render(record), "utf-8", errors="replace")
    except OSError as error:
        raise RunDirError(f"{target} cannot be written: {error.strerror}.", hint="Give another with --out.") from error
    return target


def render(record: RunRecord) -> str:
    """Returns the page."""
    step, best, worst = best_and_worst(record)
    style, script = _style(), _script()
    page = _template().render(
        record=record,
        title=one_line(record.name),
        verdict=verdict_of(record),
        about=list(_facts(record)),
        charts=[asdict(chart) for chart in charts_of(record)],
        memory=_memory(record),
        times=list(_times(record)),
        prompts=fixed_prompts(record),
        sampled_step=step,
        best=best,
        worst=worst,
        command=command_of(record),
        versions=list(_versions(record)),
        style=style,
        script=script,
        policy=_policy(style, script),
    )
    return str(page)


def _policy(style: str, script: str) -> str:
    """Returns a content security policy: this style, this script, and no request to anywhere."""
    allowed = {"style-src": style, "script-src": script}
    named = [
        f"{source} 'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for source, text in allowed.items()
    ]
    return "; ".join(["default-src 'none'", "base-uri 'none'", "form-action 'none'", *named])


@cache
def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("lowmem_rl.reports", ".")
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template("page.html.jinja")


def _style() -> str:
    return _read("uplot/uPlot.min.css") + _read("page.css")


def _script() -> str:
    return _read("uplot/uPlot.iife.min.js") + _read("page.js")


def _read(name: str) -> str:
    return (files("lowmem_rl.reports") / name).read_text("utf-8")


def _facts(record: RunRecord) -> Iterator[Fact]:
    setting = record.setting
    rewards = setting("rewards") or {}
    steps = f"{record.last_step} of {record.planned_steps or '?'}"
    card = record.machine.get("gpu") or (f"CPU, {record.machine['cores']} cores" if "cores" in record.machine else None)
    told = {
        "preset": record.preset,
        "model": setting("model.name"),
        "task": setting("task.name"),
        "rewards": ", ".join(f"{name} × {weight:g}" for name, weight in rewards.items()),
        "group size": setting("grpo.group_size"),
        "prompts a step": setting("grpo.prompts_per_step"),
        "steps": steps,
        "prompt + completion tokens": _joined(setting("grpo.max_prompt_tokens"), setting("grpo.max_completion_tokens")),
        "learning rate": setting("optimizer.learning_rate"),
        "adapter rank": setting("adapter.rank"),
        "seed": setting("seed"),
        "machine": card,
    }
    yield from ((label, one_line(value, 200)) for label, value in told.items() if value not in (None, ""))


def _joined(prompt: int | None, completion: int | None) -> str | None:
    return None if prompt is None else f"{prompt} + {completion}"


def _memory(record: RunRecord) -> Memory | None:
    predicted = record.estimate.get("phases")
    if not isinstance(predicted, dict) or not predicted:
        return None
    totals = {name: sum(terms.values()) for name, terms in predicted.items()}
    scale = max(*totals.values(), record.peak_bytes or 0, 1)
    phases = tuple(
        Phase(one_line(name), _gib(totals[name]), 100 * totals[name] / scale, tuple(_terms(terms)))
        for name, terms in predicted.items()
    )
    measured = None if record.peak_bytes is None else 100 * record.peak_bytes / scale
    return Memory(phases, tuple(_memory_facts(record)), measured)


def _terms(terms: dict[str, int]) -> Iterator[Fact]:
    for name, size in sorted(terms.items(), key=lambda term: -term[1]):
        yield one_line(name), _gib(size)


def _memory_facts(record: RunRecord) -> Iterator[Fact]:
    peak = record.estimate.get("peak_bytes") or {}
    if is_number(peak.get("expected")) and is_number(peak.get("upper")):
        yield "predicted peak", f"{_gib(peak['expected'])}, up to {_gib(peak['upper'])}"
    if record.peak_bytes is not None:
        yield "measured peak", _gib(record.peak_bytes)
    if is_number(record.estimate.get("budget_bytes")):
        yield "budget", _gib(record.estimate["budget_bytes"])


def _gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB"


def _times(record: RunRecord) -> Iterator[Fact]:
    steps = [seconds for row in record.metrics if (seconds := number(row, "step_s")) is not None]
    rates = [rate for row in record.metrics if (rate := number(row, "completion_tokens_per_s")) is not None]
    if steps:
        yield f"{len(steps)} steps of training", _clock(sum(steps))
        yield "a step, median", f"{median(steps):.2f} s"
    predicted = record.estimate.get("step_seconds")
    if isinstance(predicted, dict):
        yield "a step, predicted", f"{predicted['low']:.1f} to {predicted['high']:.1f} s"
    if rates:
        yield "completion tokens a second, median", f"{median(rates):,.0f}"
    spent = [seconds for e in record.evaluations if (seconds := number(e.result, "seconds")) is not None]
    if spent:
        yield f"{len(spent)} evaluations", _clock(sum(spent))


def _clock(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _versions(record: RunRecord) -> Iterator[Fact]:
    about = {key: record.machine.get(key) for key in ("commit", "driver", "python", "platform", "device", "dtype")}
    told = about | (record.machine.get("versions") or {})
    yield from ((one_line(name), one_line(value, 200)) for name, value in told.items() if value)
