"""The report: one HTML file that makes no requests, opens from disk and shows hostile text as text."""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from lowmem_rl.config.places import without_folder
from lowmem_rl.errors import RunDirError
from lowmem_rl.reports.escape import Fact, one_line
from lowmem_rl.reports.run_record import RunRecord, read_record
from lowmem_rl.reports.sections.charts import charts_of
from lowmem_rl.reports.sections.completions import best_and_worst, fixed_prompts
from lowmem_rl.reports.sections.findings import audit_of
from lowmem_rl.reports.sections.goals import GOALS, goals_of
from lowmem_rl.reports.sections.layers import layer_strip, what_learned
from lowmem_rl.reports.sections.memory import memory_of
from lowmem_rl.reports.sections.reproduce import command_of, settings_of
from lowmem_rl.reports.sections.results import tables_of
from lowmem_rl.reports.sections.selected_layers import selection_of
from lowmem_rl.reports.sections.stages import stages_of
from lowmem_rl.reports.sections.times import time_of
from lowmem_rl.reports.sections.verdict import verdict_of
from lowmem_rl.storage.run_dir import Row, RunDir
from lowmem_rl.storage.run_reader import number, part


def write_report(path: Path, out: Path | None = None) -> Path:
    """Writes the report of a run directory, into report.html there unless `out` is set. Raises `RunDirError`."""
    return write_page(render(read_record(path)), out or RunDir(path).report)


def write_page(text: str, target: Path) -> Path:
    """Writes a page and returns where it is. Raises `RunDirError`."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8", errors="replace")
    except OSError as error:
        raise RunDirError(f"{target} cannot be written: {error.strerror}.", hint="Give another with --out.") from error
    return target


def render(
    record: RunRecord, *, followed: bool = False, goals: Sequence[float] = GOALS, price: float | None = None
) -> str:
    """Returns the page of a run; one that is followed asks its server for updates. `price` is that of an hour."""
    step, best, worst = best_and_worst(record)
    return fill(
        "page",
        followed=followed,
        title=one_line(record.name),
        charts=[asdict(chart) for chart in charts_of(record)],
        verdict=verdict_of(record),
        about=list(_facts(record)),
        selection=selection_of(record),
        audit=audit_of(record),
        layers=layer_strip(record),
        tables=[*tables_of(record), *([reached] if (reached := goals_of(record, goals, price)).rows else [])],
        memory=memory_of(record),
        time=time_of(record),
        prompts=fixed_prompts(record),
        sampled_step=step,
        best=best,
        worst=worst,
        command=command_of(record),
        settings=settings_of(record),
        stages=stages_of(record),
        versions=list(_versions(record)),
    )


def render_notice(title: str, headline: str, text: str) -> str:
    """Returns a followed page that has only a notice yet."""
    return fill("notice", followed=True, title=one_line(title), charts=[], headline=headline, text=text)


def policy(*, followed: bool) -> str:
    """Returns a content security policy: this style and script only; a followed page may also ask its server."""
    hashes = [
        f"{source} 'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
        for source, text in (("style-src", _style()), ("script-src", _script(followed)))
    ]
    connect = ["connect-src 'self'"] if followed else []
    return "; ".join(["default-src 'none'", "base-uri 'none'", "form-action 'none'", *connect, *hashes])


def fill(template: str, *, followed: bool, **values: Any) -> str:
    """Returns a template of this room with its values, style, script and policy."""
    page = _templates().get_template(f"{template}.html.jinja")
    safe = {"style": _style(), "script": _script(followed), "policy": policy(followed=followed)}
    return str(page.render(followed=followed, **safe, **values))


@cache
def _templates() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("lowmem_rl.reports", ".")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _style() -> str:
    return _read("uplot/uPlot.min.css") + _read("page.css")


def _script(followed: bool) -> str:
    return _read("uplot/uPlot.iife.min.js") + _read("page.js") + (_read("follow.js") if followed else "")


@cache
def _read(name: str) -> str:
    return (files("lowmem_rl.reports") / name).read_text("utf-8")


def _facts(record: RunRecord) -> Iterator[Fact]:
    setting, machine = record.setting, record.machine
    prompt, completion = setting("grpo.max_prompt_tokens"), setting("grpo.max_completion_tokens")
    facts = {
        "preset": record.preset,
        "model": setting("model.name"),
        "task": without_folder(str(setting("task.name") or "")),
        "rewards": ", ".join(
            f"{without_folder(name)} × {weight}" for name, weight in part(record.config, "rewards").items()
        ),
        "group size": setting("grpo.group_size"),
        "prompts per step": setting("grpo.prompts_per_step"),
        "steps": f"{record.last_step} of {record.planned_steps or '?'}",
        "prompt + completion tokens": None if prompt is None else f"{prompt} + {completion}",
        "learning rate": setting("optimizer.learning_rate"),
        "what learns": what_learned(record) or f"adapters of rank {setting('adapter.rank')}",
        "numbers that learn": _numbers_that_learn(record),
        "seed": setting("seed"),
        "machine": machine.get("gpu") or (f"CPU, {machine['cores']} cores" if "cores" in machine else None),
        "resumed after step": _steps(record.resumes),
        "out of memory in step": _steps([row for row in record.recoveries if row.get("cause") != "kernel"]),
        "steps skipped by the gradient scaler": _steps([row for row in record.metrics if row.get("optimizer_skipped")]),
    }
    yield from ((label, one_line(value, 200)) for label, value in facts.items() if value not in (None, ""))


def _numbers_that_learn(record: RunRecord) -> str | None:
    """Returns how many numbers learned at once: a range if that has changed."""
    counts = [int(count) for row in record.metrics if (count := number(row, "trainable_numbers")) is not None]
    if not counts:
        return None
    least, most = min(counts), max(counts)
    return f"{most:,}" if least == most else f"{least:,} to {most:,} at once"


def _steps(rows: Sequence[Row]) -> str:
    """Returns the steps of some rows, each with its phase if it has one."""
    return ", ".join(f"{row['step']} ({row['phase']})" if "phase" in row else str(row["step"]) for row in rows)


def _versions(record: RunRecord) -> Iterator[Fact]:
    about = {key: record.machine.get(key) for key in ("commit", "driver", "python", "platform", "device", "dtype")}
    versions = about | part(record.machine, "versions")
    yield from ((one_line(name), one_line(value, 200)) for name, value in versions.items() if value)
