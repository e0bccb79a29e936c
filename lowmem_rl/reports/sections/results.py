"""The evaluations in tables: before and after, by level, for several samples, on other tasks, and of controls."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lowmem_rl.errors import RunDirError
from lowmem_rl.reports.compare import paired_difference
from lowmem_rl.reports.escape import one_line, p_text, percent, points
from lowmem_rl.reports.page_table import Cells, PageTable
from lowmem_rl.reports.run_record import LENIENT, EvalRecord, RunRecord, read_record
from lowmem_rl.reports.sections.charts import PASS_AT_K, sample_counts
from lowmem_rl.stats import Interval, PairedDifference
from lowmem_rl.storage.run_reader import is_number, number, numbers, part, rows_in


def tables_of(record: RunRecord) -> list[PageTable]:
    """Returns the tables that have figures."""
    tables = (_ends, _levels, _pass_at_k, _other_tasks, _later, _controls)
    return [found for table in tables if (found := table(record)).rows]


def share(result: Mapping[str, Any], key: str) -> str:
    """Returns a share of a result with its interval, in percent."""
    return _with_interval(number(result, key), part(result, f"{key}_interval"))


def other_tasks(record: RunRecord) -> Iterator[tuple[str, PairedDifference]]:
    """Yields the gain on each task that the run was not trained on, if it was tested item by item."""
    for name, found in record.eval_file.out_of_domain.items():
        if difference := _difference(part(part(found, "comparison"), "paired")):
            yield one_line(name, 60), difference


def beyond_controls(record: RunRecord) -> Iterator[tuple[str, PairedDifference]]:
    """Yields by how much a run's last evaluation is better than each control's, by the control's name."""
    for control in rows_in(record.controls, "controls"):
        if beyond := _difference(part(control, "beyond")):
            yield one_line(control.get("name", "?"), 40), beyond


def _ends(record: RunRecord) -> PageTable:
    head = ("evaluation", "items", "any format", "requested format", "cut off", "tokens", "nats from the base")
    rows = tuple(_end(evaluation) for evaluation in (record.before, record.latest) if evaluation)
    note = " ".join(["Greedy, with 95 % intervals.", *_best(record)])
    return _without_empty_columns(PageTable("Before and after", note, head, rows))


def _end(evaluation: EvalRecord) -> Cells:
    result = evaluation.result
    tokens, distance = number(result, "completion_tokens"), number(result, "kl_nats")
    return (
        "before training" if evaluation.name == "before" else f"step {evaluation.step}",
        one_line(result.get("num_examples", "-")),
        share(result, "pass_at_1"),
        share(result, "strict_pass_at_1"),
        percent(number(result, "truncated_share")),
        "-" if tokens is None else f"{tokens:.1f}",
        "-" if distance is None else f"{distance:.3g}",
    )


def _best(record: RunRecord) -> Iterator[str]:
    best = record.eval_file.best
    if is_number(best.get("step")) and is_number(best.get("pass_at_1")):
        items = f" of {one_line(best['num_examples'], 12)} items" if "num_examples" in best else ""
        which = f"step {best['step']}" if best["step"] else "the base model"
        yield f"The best was {which}, {share(best, 'pass_at_1')}{items}; its adapter is in best/."
        if best.get("note"):
            yield f"That is {one_line(best['note'], 200)}."


def _levels(record: RunRecord) -> PageTable:
    before, after = (part(result, "by_level") for result in _results(record))
    rows = tuple(
        (
            one_line(level, 20),
            one_line(found.get("num_examples", "-"), 12),
            *(share(part(levels, level), "pass_at_1") for levels in (before, after)),
        )
        for level, found in (after or before).items()
        if isinstance(found, dict)
    )
    # A single level is in the table above.
    few = rows if len(rows) > 1 else ()
    return PageTable("By level", "Greedy, in any format.", ("level", "items", "before", _now(record)), few)


def _pass_at_k(record: RunRecord) -> PageTable:
    results = _results(record)
    ks = sorted({k for result in results for k in sample_counts(result) if k > 1})
    rows = tuple(
        (str(k), *(_at_k(result, name, k) for name in ("pass_at_k", "maj_at_k") for result in results)) for k in ks
    )
    head = ("k", *(f"{name}@k {when}" for name in ("pass", "maj") for when in ("before", _now(record))))
    return PageTable("Several samples", PASS_AT_K, head, rows)


def _other_tasks(record: RunRecord) -> PageTable:
    gains = dict(other_tasks(record))
    rows = []
    for name, found in record.eval_file.out_of_domain.items():
        before, after = part(found, "before"), part(found, "after")
        items = one_line((after or before).get("num_examples", "-"), 12)
        shares = (share(result, "pass_at_1") for result in (before, after))
        rows.append((one_line(name, 60), items, *shares, _gain_text(gains.get(one_line(name, 60)))))
    note = "Not trained on: a gain here is not memorization, a loss is forgetting."
    return PageTable("Other tasks", note, ("task", "items", "before", "after", "gain"), tuple(rows))


def _later(record: RunRecord) -> PageTable:
    rows = []
    for result in record.eval_file.later:
        most = max(sample_counts(result), default=1)
        rows.append(
            (
                one_line(result.get("target", result.get("name", "?")), 60),
                one_line(result.get("step", "-"), 12),
                one_line(result.get("task", "?"), 60),
                one_line(result.get("num_examples", "-"), 12),
                share(result, "pass_at_1"),
                share(result, "strict_pass_at_1"),
                f"pass@{most} {_at_k(result, 'pass_at_k', most)}" if most > 1 else "-",
            )
        )
    head = ("of", "step", "task", "items", "any format", "requested format", "several samples")
    return _without_empty_columns(PageTable("Evaluated later", "By `lowmem-rl eval`.", head, tuple(rows)))


def _controls(record: RunRecord) -> PageTable:
    rows = tuple(filter(None, (_control(path) for path in sorted((record.path / "controls").glob("*/config.json")))))
    words = record.controls.get("words")
    remarks = [one_line(sentence, 300) for sentence in words] if isinstance(words, list) else []
    note = " ".join(["The same run, shorter, with another reward.", *remarks])
    return PageTable("Controls", note, ("reward", "steps", "before", "after", "gain"), rows)


def _control(config: Path) -> Cells | None:
    try:
        record = read_record(config.parent)
    except RunDirError:
        return None
    before, latest = record.before, record.latest
    if not (before and latest):
        return None
    shares = (share(evaluation.result, "pass_at_1") for evaluation in (before, latest))
    gain = _gain_text(paired_difference(before, latest, LENIENT))
    return (one_line(record.name, 40), str(record.last_step), *shares, gain)


def _results(record: RunRecord) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Returns the results before training and of the last evaluation, empty if there is none."""
    before, latest = record.before, record.latest
    return before.result if before else {}, latest.result if latest else {}


def _now(record: RunRecord) -> str:
    """Names the last evaluation: of an unfinished run it is not the one after training."""
    return "after" if record.is_finished or not record.latest else f"at step {record.latest.step}"


def _difference(found: Mapping[str, Any]) -> PairedDifference | None:
    """Returns a comparison as it is in eval.json, None if a figure is missing."""
    values, interval = numbers(found), numbers(part(found, "interval"))
    if not ({"gain", "p_value", "won", "lost", "num_items"} <= values.keys() and {"low", "high"} <= interval.keys()):
        return None
    counts = (int(values[key]) for key in ("won", "lost", "num_items"))
    return PairedDifference(values["gain"], Interval(interval["low"], interval["high"]), values["p_value"], *counts)


def _gain_text(gain: PairedDifference | None) -> str:
    return f"{points(gain)}, {p_text(gain.p_value)}" if gain else "-"


def _at_k(result: Mapping[str, Any], name: str, k: int) -> str:
    return _with_interval(number(part(result, name), str(k)), part(part(result, f"{name}_intervals"), str(k)))


def _with_interval(value: float | None, interval: Mapping[str, Any]) -> str:
    low, high = number(interval, "low"), number(interval, "high")
    known = value is not None and low is not None and high is not None
    return percent(value) + (f" [{percent(low)}, {percent(high)}]" if known else "")


def _without_empty_columns(table: PageTable) -> PageTable:
    """Leaves out columns without a figure: of an older version, or of an evaluation that did not measure it."""
    columns = [column for column in zip(table.head, *table.rows, strict=True) if set(column[1:]) != {"-"}]
    head, *rows = zip(*columns, strict=True)
    return PageTable(table.title, table.note, head, tuple(rows))
