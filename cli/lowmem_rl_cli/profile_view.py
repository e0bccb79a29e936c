"""The page of `profile`: the verdict in a sentence, then what it stands on."""

from collections.abc import Iterator

from lowmem_rl.memory.estimate import MemoryEstimate, Verdict, verdict
from lowmem_rl.planning.advice import Advice
from lowmem_rl.planning.plan import Plan
from lowmem_rl.planning.step_time import SecondsRange
from lowmem_rl.signal.groups import MAX_GROUP_SIZE, MEANINGFUL_SHARE
from lowmem_rl.signal.signal_report import RECOMMENDATION, SignalFinding
from lowmem_rl.units import GIB, MIB
from lowmem_rl_cli.text_page import BOLD, DIM, GREEN, RED, YELLOW, TextPage

COLOURS = {
    "fits": GREEN,
    "tight": YELLOW,
    "does-not-fit": RED,
    "ok": GREEN,
    "note": GREEN,
    "warning": YELLOW,
    "too-small": RED,
}
SEVERITY = (GREEN, YELLOW, RED)
BARS_BESIDE = 60
"""Columns from which there is room for bars beside figures, and for settings behind a number."""
WORDS = {"fits": "fits", "tight": "tight", "does-not-fit": "does not fit"}


def render(plan: Plan, preset: str, place: str, page: TextPage, *, verbose: bool = False) -> str:
    """Returns the page; `verbose` shows the terms of every phase with their formulas."""
    return "\n".join(_lines(plan, preset, place, page, verbose))


def _lines(plan: Plan, preset: str, place: str, page: TextPage, verbose: bool) -> Iterator[str]:
    colour = max(COLOURS[plan.memory_verdict], COLOURS[plan.signal.verdict], key=SEVERITY.index)
    yield from page.fold(verdict_sentence(plan), "", "", BOLD, colour)
    yield from page.fold(_refusal(plan), "", "")
    yield ""
    yield from page.fold(_subject(plan, preset, place), "", "", DIM)
    yield from _phases(plan, page)
    for phase in plan.estimate.phases if verbose else [plan.estimate.peak_phase]:
        yield from _terms(plan, phase, page, verbose)
    notes = [*plan.estimate.notes, *([str(plan.target.calibration)] if plan.target.calibration else [])]
    yield from (line for note in notes for line in page.fold(f"note: {note}.", "  ", "  ", DIM))
    yield from _signal(plan, page)
    yield from _frontier(plan, page)
    yield from _time(plan, page)
    yield from _otherwise(plan, page)
    yield from _advice(plan, page)


def verdict_sentence(plan: Plan) -> str:
    """Returns both verdicts in one sentence."""
    return f"{_memory_clause(plan)}{_signal_clause(plan)}."


def _memory_clause(plan: Plan) -> str:
    expected, upper, budget = plan.estimate.expected_bytes, plan.estimate.upper_bytes, plan.target.budget_bytes
    clauses: dict[Verdict, str] = {
        "fits": f"Fits: {gib(upper)} of {gib(budget)} GiB at most",
        "tight": f"Tight: {gib(expected)} GiB expected, {gib(upper)} at most, of {gib(budget)}",
        "does-not-fit": f"Does not fit: {gib(expected)} GiB expected, {gib(upper)} at most, of {gib(budget)}",
    }
    return clauses[plan.memory_verdict]


def _signal_clause(plan: Plan) -> str:
    verdict, joint = plan.signal.verdict, "but" if plan.memory_verdict == "fits" else "and"
    if verdict == "too-small":
        return f", {joint} carries no signal: {plan.signal.findings[0].what}"
    if verdict == "warning":
        return f", {joint} the signal is thin: {plan.signal.findings[0].what}"
    joint = ", and" if plan.memory_verdict == "fits" else ";"
    return f"{joint} {percent(plan.signal.informative_share)} of the groups carry signal"


def _refusal(plan: Plan) -> str:
    """Returns what `train` will say to it, and the first change with which the run fits."""
    refused = plan.memory_verdict == "does-not-fit" or plan.signal.verdict == "too-small"
    said = "`train` refuses this run; --force overrides." if refused else ""
    if not plan.remedies:
        return said
    return (
        f"{said} With --set {plan.remedies[0].change} it fits; the group stays {plan.config.grpo.group_size}.".strip()
    )


def _subject(plan: Plan, preset: str, place: str) -> str:
    config, grpo = plan.config, plan.config.grpo
    method = "QLoRA" if config.model.bits == 4 else "LoRA"
    rows = f"{grpo.prompts_per_step} x {grpo.group_size} completions a step, up to "
    tokens = f"{grpo.max_prompt_tokens} + {grpo.max_completion_tokens} tokens each"
    memory = f"{config.micro_batch} a micro-batch, {_wave(plan)}, checkpointing {config.checkpointing}"
    model = f"{plan.target.shape.key}, {method} of rank {config.adapter.rank}"
    return f"{preset} on {place}: {model}; {rows}{tokens}; {memory}."


def _wave(plan: Plan) -> str:
    """Returns how rows are sampled together, by which engine; ours fills the place of a row that has ended."""
    config, engine = plan.config, plan.estimate.workload.rollout_engine
    if engine != "lowmem":
        return f"{config.rollout_rows} a wave of {engine}"
    refilled = "" if config.rollout_rows == config.rows_per_rollout else ", refilled"
    return f"{config.rollout_rows} a wave{refilled}, {config.rollout_weights} weights"


def _phases(plan: Plan, page: TextPage) -> Iterator[str]:
    """Yields a bar for each phase, all to one scale, with the edge of the budget marked."""
    needed, budget = plan.estimate, plan.target.budget_bytes
    sizes = {phase: (needed.phase_bytes(phase), _upper(needed, phase)) for phase in needed.phases}
    name, scale = max(map(len, sizes)), max(budget, *(upper for _, upper in sizes.values()))
    is_narrow = page.columns < BARS_BESIDE  # there a bar stands below its figures
    width = page.columns - 5 if is_narrow else page.columns - name - 32
    edge = round(width * budget / scale)
    solid, light, mark = page.glyphs
    counted = "as the driver counts" if plan.target.card else "of host memory"
    yield from page.heading("Memory by phase", f"GiB {counted}: {solid} expected, {light} upper, {mark} budget")
    label = f"{gib(budget)} GiB"
    gap = "\n  " if is_narrow else "  "
    yield page.ink(f"  {'':<{name}}  expected  upper{gap}{label.rjust(edge + 1)}", DIM)
    for phase, (expected, upper) in sizes.items():
        bar = page.bar(expected, upper, budget, scale, width)
        figures = f"  {phase:<{name}}  {gib(expected):>8}  {gib(upper):>5}"
        is_peak = phase == needed.peak_phase
        codes = (BOLD, COLOURS[plan.memory_verdict]) if is_peak else ()
        mark = " peak" if is_peak else ""
        yield page.ink(f"{figures}{mark}{gap}{bar}" if is_narrow else f"{figures}{gap}{bar}{mark}", *codes)


def _terms(plan: Plan, phase: str, page: TextPage, verbose: bool) -> Iterator[str]:
    needed, parts = plan.estimate, plan.estimate.phases[phase]
    yield from page.heading(phase.capitalize(), "the peak, GiB" if phase == needed.peak_phase else "GiB")
    head, rows = ("", "expected", "upper", "formula; evidence" if verbose else "evidence"), []
    for part in parts:
        grade = f"{part.formula}; {part.grade}" if verbose else part.grade
        rows.append((part.name, gib2(part.expected_bytes), gib2(part.upper_bytes), grade))
    rows.append(("in all", gib2(needed.phase_bytes(phase)), gib2(_upper(needed, phase)), ""))
    yield from page.table(rows, "lrrl", head, bold=len(rows) - 1)
    elastic = sum(part.expected_bytes for part in parts if part.elastic)
    if elastic >= GIB // 200:
        yield from page.fold(f"{gib2(elastic)} GiB of it are given back under pressure.", "  ", "", DIM)


def _signal(plan: Plan, page: TextPage) -> Iterator[str]:
    signal = plan.signal
    known = "every rate from 0 to 1 counts alike" if signal.pass_rate.kind == "unknown" else ""
    yield from page.heading("Signal", "; ".join(filter(None, [f"{signal.pass_rate} of {signal.judged_by}", known])))
    uneven = "" if signal.pessimistic_share is None else f"; {percent(signal.pessimistic_share)} on uneven data"
    a_step = f"{signal.informative_groups_per_step:.1f} of {signal.prompts_per_step} a step"
    smallest = signal.smallest_group_size
    reached = "the smallest group that reaches it" if smallest else f"no group up to {MAX_GROUP_SIZE} reaches it"
    rows = [
        ("informative groups", percent(signal.informative_share), a_step + uneven),
        ("steps without any", percent(signal.dead_step_probability), ""),
        (f"{percent(MEANINGFUL_SHARE)} informative from", str(smallest or "none"), reached),
        ("recommended group", str(signal.recommended_group_size), RECOMMENDATION),
        ("worth of a rollout", percent(signal.baseline_efficiency), "against a perfect baseline"),
    ]
    yield from page.table(rows, "lrl")
    for finding in signal.findings:
        yield from page.fold(_finding(finding), "  ", "  ", COLOURS[finding.level])
    for caveat in signal.caveats:
        yield from page.fold(f"note: {caveat}.", "  ", "  ", DIM)


def _finding(finding: SignalFinding) -> str:
    return f"{finding.level}: {finding.what}. Cure: {finding.fix}."


def _frontier(plan: Plan, page: TextPage) -> Iterator[str]:
    yield from page.heading("Group size", "at the same micro-batch and wave, as far as its rows fill them; GiB")
    head, rows = ("group", "expected", "upper", "informative", "step time", ""), []
    chosen = [point.group_size for point in plan.frontier].index(plan.config.grpo.group_size)
    for number, point in enumerate(plan.frontier):
        share, time = percent(point.informative_share), f"{point.relative_step_time:.2f}x"
        cells = (str(point.group_size), gib(point.expected_bytes), gib(point.upper_bytes), share, time)
        rows.append((*cells, "<- this run" if number == chosen else ""))
    yield from page.table(rows, "rrrrrl", head, bold=chosen)


def _time(plan: Plan, page: TextPage) -> Iterator[str]:
    if plan.time is None:
        yield from page.heading("Time", _why_no_time(plan))
        return
    yield from page.heading("Time", f"{plan.time.grade}: data-sheet rates, half to all of the lengths allowed")
    parts = sorted(plan.time.parts.items(), key=lambda part: -part[1].high)
    rows = [
        ("a step", span(plan.time.step), ", ".join(f"{name} {span(time)}" for name, time in parts)),
        (f"{plan.config.grpo.steps} steps", span(plan.time.run), "evaluations included"),
    ]
    yield from page.table(rows, "lrl")


def _why_no_time(plan: Plan) -> str:
    return "not predicted for a card of unknown speed" if plan.target.card else "not predicted on a CPU"


def _otherwise(plan: Plan, page: TextPage) -> Iterator[str]:
    """Yields the same run done otherwise, and what is needed beside the card."""
    yield from page.heading("Done otherwise", "the same run, GiB")
    this, needed, budget = "QLoRA" if plan.config.model.bits == 4 else "LoRA", plan.estimate, plan.target.budget_bytes
    head, rows = ("", "expected", "upper", "", "run" if plan.time else ""), []
    for way in plan.alternatives:
        fits = WORDS[verdict(way.expected_bytes, way.upper_bytes, budget)]
        shown = f"{way.name} (this run)" if way.name == this else way.name
        rows.append((shown, gib(way.expected_bytes), gib(way.upper_bytes), fits, span(way.run) if way.run else ""))
    chosen = next(number for number, row in enumerate(rows) if row[0].endswith("(this run)"))
    yield from page.table(rows, "lrrll", head, bold=chosen)
    host = f"{amount(needed.host_bytes)} of host memory, " if plan.target.card else ""
    yield from page.fold(f"Beside that: {host}{amount(needed.disk_bytes)} of disk.")


def _advice(plan: Plan, page: TextPage) -> Iterator[str]:
    if not plan.advice:
        return
    yield from page.heading("Advice", "the best first; the group is never cut")
    for number, item in enumerate(plan.advice, start=1):
        # A line must not end between --set and its setting.
        change = f"{number}. --set {item.change}".replace("--set ", "--set\N{NO-BREAK SPACE}")
        hang = "" if page.columns < BARS_BESIDE else "   "
        yield from (line.replace("\N{NO-BREAK SPACE}", " ") for line in page.fold(change, "  ", hang, BOLD))
        yield from page.fold(_price(item, plan), "     ")


def _price(item: Advice, plan: Plan) -> str:
    saves = f"saves {gib(item.saves_bytes)} GiB: " if item.saves_bytes > 0 else ""
    return f"{saves}{item.costs}" + ("; then it fits" if item in plan.remedies else "")


def _upper(needed: MemoryEstimate, phase: str) -> int:
    return sum(part.upper_bytes for part in needed.phases[phase])


def gib(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.1f}"


def gib2(num_bytes: int) -> str:
    """Returns GiB with two digits; what is there but smaller is said to be."""
    return "<0.01" if 0 < num_bytes < GIB / 200 else f"{num_bytes / GIB:.2f}"


def amount(num_bytes: int) -> str:
    """Returns bytes with the unit that suits them."""
    return f"{num_bytes / GIB:.1f} GiB" if num_bytes >= GIB else f"{num_bytes / MIB:.0f} MiB"


def percent(share: float) -> str:
    """Returns a share as a percentage that is 0 or 100 only where it is."""
    if 0 < share < 0.001:
        return "<0.1 %"
    if 0.995 <= share < 1:
        return ">99 %"
    return f"{100 * share:.1f} %" if 0 < share < 0.095 else f"{100 * share:.0f} %"


def span(time: SecondsRange) -> str:
    """Returns a range in the unit that suits its end."""
    units = (("h", 3600), ("min", 60), ("s", 1))
    unit, seconds = next((unit for unit in units if time.high >= 2 * unit[1]), units[-1])
    low, high = time.low / seconds, time.high / seconds
    digits = 1 if high < 20 else 0
    return f"{low:.{digits}f} to {high:.{digits}f} {unit}"
