"""What the evaluations found, in tables: at both ends, by level, for several tries, on other tasks, and of controls."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lowmem_rl.errors import RunDirError
from lowmem_rl.reports.compare import paired_difference
from lowmem_rl.reports.escape import one_line, p_text, percent, points
from lowmem_rl.reports.page_table import Cells, PageTable
from lowmem_rl.reports.run_record import LENIENT, EvalRecord, RunRecord, read_record
from lowmem_rl.reports.sections.charts import TRIES, tries_in
from lowmem_rl.stats import Interval, PairedDifference
from lowmem_rl.storage.run_reader import is_number, number, numbers, part, rows_in


def tables_of(record: RunRecord) -> list[PageTable]:
    """Returns the tables for which there are figures."""
    found = (_ends(record), _levels(record), _tries(record), _other_tasks(record), _later(record), _controls(record))
    return [one for one in found if one.rows]


def share(result: Mapping[str, Any], key: str) -> str:
    """Returns a share of a result with its interval, as a person reads it."""
    return _with_interval(number(result, key), part(result, f"{key}_interval"))


def other_tasks(record: RunRecord) -> Iterator[tuple[str, PairedDifference]]:
    """Yields what a run gained on tasks that it did not learn, where that was tested item by item."""
    for name, found in record.eval_file.out_of_domain.items():
        if difference := _paired(part(part(found, "comparison"), "paired")):
            yield one_line(name, 60), difference


def controls_beside(record: RunRecord) -> Iterator[tuple[str, PairedDifference]]:
    """Yields how far a run's last evaluation is beyond each control's, by the control's name."""
    for control in rows_in(record.controls, "controls"):
        if beyond := _paired(part(control, "beyond")):
            yield one_line(control.get("name", "?"), 40), beyond


def _ends(record: RunRecord) -> PageTable:
    head = ("evaluation", "items", "answer anywhere", "asked form", "cut off", "tokens", "nats from the base")
    both = [evaluation for evaluation in (record.before, record.latest) if evaluation]
    rows = tuple(_end(evaluation) for evaluation in both)
    note = "Greedy, with 95 % intervals."
    return _without_empty_columns(PageTable("Before and after", " ".join([note, *_best(record)]), head, rows))


def _end(evaluation: EvalRecord) -> Cells:
    told = evaluation.result
    tokens, distance = number(told, "completion_tokens"), number(told, "kl_nats")
    return (
        "before training" if evaluation.name == "before" else f"step {evaluation.step}",
        one_line(told.get("num_examples", "-")),
        share(told, "pass_at_1"),
        share(told, "strict_pass_at_1"),
        percent(number(told, "truncated_share")),
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
    before, after = (part(_result(record, name), "by_level") for name in ("before", "latest"))
    rows = tuple(
        (one_line(level, 20), one_line(found.get("num_examples", "-"), 12), *_two(before, after, level, "pass_at_1"))
        for level, found in (after or before).items()
        if isinstance(found, dict)
    )
    # A single level is what stands in the table above.
    shown = rows if len(rows) > 1 else ()
    return PageTable("By level", "Greedy, the answer anywhere.", ("level", "items", "before", _now(record)), shown)


def _two(before: Mapping[str, Any], after: Mapping[str, Any], level: str, key: str) -> tuple[str, str]:
    first, second = (share(part(found, level), key) for found in (before, after))
    return first, second


def _tries(record: RunRecord) -> PageTable:
    results = [_result(record, name) for name in ("before", "latest")]
    ks = sorted({k for told in results for k in tries_in(told) if k > 1})
    rows = tuple(
        (str(k), *(_at_k(told, name, k) for name in ("pass_at_k", "maj_at_k") for told in results)) for k in ks
    )
    head = ("k", *(f"{name}@k {when}" for name in ("pass", "maj") for when in ("before", _now(record))))
    return PageTable("More than one try", TRIES, head, rows)


def _at_k(told: Mapping[str, Any], name: str, k: int) -> str:
    return _with_interval(number(part(told, name), str(k)), part(part(told, f"{name}_intervals"), str(k)))


def _other_tasks(record: RunRecord) -> PageTable:
    tested = dict(other_tasks(record))
    rows = []
    for name, found in record.eval_file.out_of_domain.items():
        before, after = part(found, "before"), part(found, "after")
        gain = tested.get(one_line(name, 60))
        items = one_line((after or before).get("num_examples", "-"), 12)
        shares = (share(told, "pass_at_1") for told in (before, after))
        rows.append((one_line(name, 60), items, *shares, _gain_text(gain)))
    note = "Not trained on: what is gained here was not learnt by heart, what is lost was forgotten."
    return PageTable("Other tasks", note, ("task", "items", "before", "after", "gain"), tuple(rows))


def _later(record: RunRecord) -> PageTable:
    rows = tuple(
        (
            one_line(told.get("target", told.get("name", "?")), 60),
            one_line(told.get("step", "-"), 12),
            one_line(told.get("task", "?"), 60),
            one_line(told.get("num_examples", "-"), 12),
            share(told, "pass_at_1"),
            share(told, "strict_pass_at_1"),
            _most_tries(told),
        )
        for told in record.eval_file.later
    )
    head = ("of", "step", "task", "items", "answer anywhere", "asked form", "more than one try")
    return _without_empty_columns(PageTable("Evaluated since", "By `lowmem-rl eval`.", head, rows))


def _most_tries(told: Mapping[str, Any]) -> str:
    """Returns pass@k for the most tries that were sampled."""
    most = max(tries_in(told), default=1)
    return f"pass@{most} {_at_k(told, 'pass_at_k', most)}" if most > 1 else "-"


def _controls(record: RunRecord) -> PageTable:
    rows = tuple(filter(None, (_control(path) for path in sorted((record.path / "controls").glob("*/config.json")))))
    words = record.controls.get("words")
    said = [one_line(sentence, 300) for sentence in words] if isinstance(words, list) else []
    note = " ".join(["The same run, briefly, paid for something else.", *said])
    return PageTable("Controls", note, ("paid for", "steps", "before", "after", "gain"), rows)


def _control(config: Path) -> Cells | None:
    try:
        record = read_record(config.parent)
    except RunDirError:
        return None
    before, latest = record.before, record.latest
    if not (before and latest):
        return None
    gain = paired_difference(before, latest, LENIENT)
    shares = (share(evaluation.result, "pass_at_1") for evaluation in (before, latest))
    return (one_line(record.name, 40), str(record.last_step), *shares, _gain_text(gain))


def _gain_text(gain: PairedDifference | None) -> str:
    return f"{points(gain)}, {p_text(gain.p_value)}" if gain else "-"


def _paired(told: Mapping[str, Any]) -> PairedDifference | None:
    """Returns what a comparison in eval.json says, None where a figure is missing."""
    found, interval = numbers(told), numbers(part(told, "interval"))
    if not ({"gain", "p_value", "won", "lost", "num_items"} <= found.keys() and {"low", "high"} <= interval.keys()):
        return None
    counts = (int(found[key]) for key in ("won", "lost", "num_items"))
    return PairedDifference(found["gain"], Interval(interval["low"], interval["high"]), found["p_value"], *counts)


def _now(record: RunRecord) -> str:
    """Names the last evaluation: a run that goes on is not after training."""
    return "after" if record.is_finished or not record.latest else f"at step {record.latest.step}"


def _result(record: RunRecord, name: str) -> Mapping[str, Any]:
    evaluation = record.before if name == "before" else record.latest
    return evaluation.result if evaluation else {}


def _with_interval(found: float | None, interval: Mapping[str, Any]) -> str:
    low, high = number(interval, "low"), number(interval, "high")
    known = found is not None and low is not None and high is not None
    return percent(found) + (f" [{percent(low)}, {percent(high)}]" if known else "")


def _without_empty_columns(shown: PageTable) -> PageTable:
    """Leaves out columns without a figure: an older version, or an evaluation that did not ask."""
    columns = [column for column in zip(shown.head, *shown.rows, strict=True) if set(column[1:]) != {"-"}]
    head, *rows = zip(*columns, strict=True)
    return PageTable(shown.title, shown.note, head, tuple(rows))
