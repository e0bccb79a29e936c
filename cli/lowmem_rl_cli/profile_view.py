"""The page of `profile`: the verdict in a sentence, then what it is based on."""

from collections.abc import Iterator

from lowmem_rl.config.notices import notices
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.memory.estimate import MemoryEstimate, Verdict, verdict
from lowmem_rl.planning.explain import Explanation
from lowmem_rl.planning.plan import Plan
from lowmem_rl.planning.probe_offer import is_unknown, probe_offer
from lowmem_rl.planning.run_cost import RunCost
from lowmem_rl.planning.selection_notes import selection_notes
from lowmem_rl.planning.step_time import SecondsRange, StepTime
from lowmem_rl.planning.trainable_words import trainable_words
from lowmem_rl.signal.groups import MAX_GROUP_SIZE, MEANINGFUL_SHARE, baseline_efficiency
from lowmem_rl.signal.signal_report import RECOMMENDATION, SignalReport
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
_SEVERITY = (GREEN, YELLOW, RED)
WIDE = 60
"""Columns from which there is room for bars next to figures, and for settings after a number."""


def render(
    plan: Plan,
    explained: Explanation,
    preset: str,
    place: str,
    page: TextPage,
    *,
    verbose: bool = False,
    cost: RunCost | None = None,
) -> str:
    """Returns the page; `verbose` shows the terms of every phase with their formulas."""
    return "\n".join(_lines(plan, explained, preset, place, page, verbose, cost))


def _lines(
    plan: Plan,
    explained: Explanation,
    preset: str,
    place: str,
    page: TextPage,
    verbose: bool,
    cost: RunCost | None,
) -> Iterator[str]:
    colour = max(COLOURS[plan.memory_verdict], COLOURS[plan.signal.verdict], key=_SEVERITY.index)
    yield from page.fold(verdict_sentence(plan), "", "", BOLD, colour)
    yield from page.fold(_refusal(plan, explained), "", "")
    yield ""
    yield from page.fold(f"{preset} on {place}: {_subject(plan)}.", "", "", DIM)
    yield from _phases(plan, page)
    for phase in plan.estimate.phases if verbose else [plan.estimate.peak_phase]:
        yield from _terms(plan.estimate, phase, page, verbose)
    if process := plan.process:
        yield from page.fold(f"{process}.", "  ", "  ", DIM)
    calibration = [str(plan.target.calibration)] if plan.target.calibration else []
    learning = trainable_words(plan.written, plan.config, plan.target)
    bits = [plan.why_these_bits] if plan.why_these_bits else []
    notes = [*bits, *learning, *plan.estimate.notes, *calibration, *notices(plan.config)]
    notes += selection_notes(plan.config, plan.target.shape)
    yield from (line for note in notes for line in page.fold(f"note: {note}.", "  ", "  ", DIM))
    yield from _signal(plan.signal, page)
    yield from _frontier(plan, explained, page)
    yield from _time(plan, cost, page)
    yield from _alternatives(plan, explained, page)
    yield from _advice(explained, page)


def verdict_sentence(plan: Plan) -> str:
    """Returns both verdicts in one sentence."""
    expected, upper, budget = plan.estimate.expected_bytes, plan.estimate.upper_bytes, plan.target.budget_bytes
    clauses: dict[Verdict, str] = {
        "fits": f"Fits: {gib(upper)} of {gib(budget)} GiB at most",
        "tight": f"Tight: {gib(expected)} GiB expected, {gib(upper)} at most, of {gib(budget)}",
        "does-not-fit": f"Does not fit: {gib(expected)} GiB expected, {gib(upper)} at most, of {gib(budget)}",
    }
    return f"{clauses[plan.memory_verdict]}{_signal_clause(plan)}."


def _signal_clause(plan: Plan) -> str:
    fits, signal = plan.memory_verdict == "fits", plan.signal
    joint = "but" if fits else "and"
    if signal.verdict == "too-small":
        return f", {joint} carries no signal: {signal.findings[0].what}"
    if signal.verdict == "warning":
        return f", {joint} the signal is thin: {signal.findings[0].what}"
    if is_unknown(plan):
        return f"; whether its groups carry signal is not known without a pass rate: {probe_offer(plan)}"
    return f"{', and' if fits else ';'} {percent(signal.informative_share)} of the groups carry signal"


def _refusal(plan: Plan, explained: Explanation) -> str:
    """Returns what `train` will say to it, and the first change with which the run fits."""
    refused = plan.memory_verdict == "does-not-fit" or plan.signal.verdict == "too-small"
    text = "`train` refuses this run; --force overrides. " if refused else ""
    if explained.remedies:
        change, group_size = explained.remedies[0].change, plan.config.grpo.group_size
        text += f"With --set {change} it fits; the group stays {group_size}."
    return text.rstrip()


def _subject(plan: Plan) -> str:
    config, grpo, engine = plan.config, plan.config.grpo, plan.estimate.workload.rollout_engine
    rows = f"{grpo.prompts_per_step} x {grpo.group_size} completions a step, up to "
    tokens = f"{grpo.max_prompt_tokens} + {grpo.max_completion_tokens} tokens each"
    wave = f"{config.rollout_rows} a wave"
    if engine == "lowmem":  # it fills the place of a row that has ended
        refilled = "" if config.rollout_rows == config.rows_per_rollout else ", refilled"
        wave += f"{refilled}, {config.rollout_weights} weights"
    else:
        wave += f" of {engine}"
    memory = f"{config.micro_batch} a micro-batch, {wave}, checkpointing {config.checkpointing}"
    memory += ", frozen layers run once" if config.keeps_states else ""
    return f"{plan.target.shape.key}, {_what_learns(plan)}; {rows}{tokens}; {memory}"


def _what_learns(plan: Plan) -> str:
    """Returns what learns, over what, and how many numbers that are."""
    trainable, bits = plan.config.trainable, plan.config.model.bits
    chosen = "" if trainable.layers == "all" else f" in layers {trainable.layers}"
    if trainable.method == "lora":
        what = f"{_adapter(plan.config)}{chosen}"
    else:
        layers = () if trainable.layers == "none" else (f"whole weights{chosen or ' in all layers'}",)
        what = f"{' and '.join((*layers, *trainable.extra))} over {bits} bit"
    scheduled = "" if trainable.schedule == "fixed" else f", {trainable.schedule}"
    return f"{what}{scheduled}, {plan.estimate.learning_numbers:,} numbers learn"


def _adapter(config: RunConfig) -> str:
    adapter, is_quantised = config.adapter, config.model.bits == 4
    if adapter.peft_type == "tinylora":
        return f"TinyLoRA over {'4-bit' if is_quantised else '16-bit'} weights"
    name = ("Q" if is_quantised else "") + ("DoRA" if adapter.use_dora else "LoRA")
    others = ", ".join(f"{rank} in {pattern}" for pattern, rank in adapter.rank_pattern.items())
    return f"{name} of rank {adapter.rank}{f' ({others})' if others else ''}"


def _phases(plan: Plan, page: TextPage) -> Iterator[str]:
    """Yields a bar for each phase, all to one scale, with the edge of the budget marked."""
    needed, budget = plan.estimate, plan.target.budget_bytes
    sizes = {phase: (needed.phase_bytes(phase), _upper(needed, phase)) for phase in needed.phases}
    name, scale = max(map(len, sizes)), max(budget, *(upper for _, upper in sizes.values()))
    is_narrow = page.columns < WIDE  # there a bar is below its figures
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


def _terms(needed: MemoryEstimate, phase: str, page: TextPage, verbose: bool) -> Iterator[str]:
    parts = needed.phases[phase]
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


def _signal(signal: SignalReport, page: TextPage) -> Iterator[str]:
    known = "; here every rate from 0 to 1 counts the same" if signal.pass_rate.kind == "unknown" else ""
    yield from page.heading("Signal", f"{signal.pass_rate} of {signal.reward}{known}")
    uneven = "" if signal.pessimistic_share is None else f"; {percent(signal.pessimistic_share)} on uneven data"
    a_step = f"{signal.informative_groups_per_step:.1f} of {signal.prompts_per_step} a step"
    smallest = signal.smallest_group_size
    reached = "the smallest group that reaches it" if smallest else f"no group up to {MAX_GROUP_SIZE} reaches it"
    rows = [
        ("informative groups", percent(signal.informative_share), a_step + uneven),
        ("steps without any", percent(signal.dead_step_probability), ""),
        (f"{percent(MEANINGFUL_SHARE)} informative from", str(smallest or "none"), reached),
        ("recommended group", str(signal.recommended_group_size), RECOMMENDATION),
        ("sample efficiency", percent(baseline_efficiency(signal.group_size)), "against a perfect baseline"),
    ]
    yield from page.table(rows, "lrl")
    for finding in signal.findings:
        text = f"{finding.level}: {finding.what}. Fix: {finding.fix}."
        yield from page.fold(text, "  ", "  ", COLOURS[finding.level])
    for caveat in signal.caveats:
        yield from page.fold(f"note: {caveat}.", "  ", "  ", DIM)


def _frontier(plan: Plan, explained: Explanation, page: TextPage) -> Iterator[str]:
    yield from page.heading("Group size", "at the same micro-batch and wave, as far as its rows fill them; GiB")
    head, rows = ("group", "expected", "upper", "informative", "step time", ""), []
    chosen = [point.group_size for point in explained.frontier].index(plan.config.grpo.group_size)
    for number, point in enumerate(explained.frontier):
        share, time = percent(point.informative_share), f"{point.relative_step_time:.2f}x"
        cells = (str(point.group_size), gib(point.expected_bytes), gib(point.upper_bytes), share, time)
        rows.append((*cells, "<- this run" if number == chosen else ""))
    yield from page.table(rows, "rrrrrl", head, bold=chosen)


def _time(plan: Plan, cost: RunCost | None, page: TextPage) -> Iterator[str]:
    if (time := plan.time) is None:
        why = "for a card of unknown speed" if plan.target.card else "on a CPU"
        yield from page.heading("Time", f"not predicted {why}")
        return
    yield from page.heading("Time", f"{time.grade}: data-sheet rates, half to all of the lengths allowed")
    parts = sorted(time.parts.items(), key=lambda part: -part[1].high)
    rows = [
        ("a step", span(time.step), ", ".join(f"{name} {span(part)}" for name, part in parts)),
        (f"{plan.config.grpo.steps} steps", span(time.run), _included(time)),
    ]
    if cost:
        rows.append(("cost", str(cost), f"{cost.price.an_hour:g} an hour: {cost.price.source}"))
    yield from page.table(rows, "lrl")


def _included(time: StepTime) -> str:
    selection = f" and {span(time.selection)} to select layers" if time.selection.high else ""
    return f"evaluations{selection} included"


def _alternatives(plan: Plan, explained: Explanation, page: TextPage) -> Iterator[str]:
    """Yields the same run with other methods, and what is needed in addition to the card."""
    yield from page.heading("Alternatives", "the same run, GiB")
    this = explained.alternatives[0 if plan.config.model.bits == 4 else 1].name
    needed, budget = plan.estimate, plan.target.budget_bytes
    head, rows = ("", "expected", "upper", "", "run" if plan.time else ""), []
    for way in explained.alternatives:
        fits = verdict(way.expected_bytes, way.upper_bytes, budget).replace("-", " ")
        name = f"{way.name} (this run)" if way.name == this else way.name
        rows.append((name, gib(way.expected_bytes), gib(way.upper_bytes), fits, span(way.run) if way.run else ""))
    chosen = [way.name for way in explained.alternatives].index(this)
    yield from page.table(rows, "lrrll", head, bold=chosen)
    host = f"{amount(needed.host_bytes)} of host memory, " if plan.target.card else ""
    yield from page.fold(f"In addition: {host}{amount(needed.disk_bytes)} of disk.")


def _advice(explained: Explanation, page: TextPage) -> Iterator[str]:
    if not explained.advice:
        return
    yield from page.heading("Advice", "the best first; the group is never cut")
    for number, item in enumerate(explained.advice, start=1):
        # A line must not end between --set and its setting.
        change = f"{number}. --set {item.change}".replace("--set ", "--set\N{NO-BREAK SPACE}")
        hang = "" if page.columns < WIDE else "   "
        yield from (line.replace("\N{NO-BREAK SPACE}", " ") for line in page.fold(change, "  ", hang, BOLD))
        saves = f"saves {gib(item.saves_bytes)} GiB: " if item.saves_bytes > 0 else ""
        fits = "; then it fits" if item in explained.remedies else ""
        yield from page.fold(f"{saves}{item.costs}{fits}", "     ")


def _upper(needed: MemoryEstimate, phase: str) -> int:
    return sum(part.upper_bytes for part in needed.phases[phase])


def gib(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.1f}"


def gib2(num_bytes: int) -> str:
    """Returns GiB with two digits; what is smaller but not nothing is shown as such."""
    return "<0.01" if 0 < num_bytes < GIB / 200 else f"{num_bytes / GIB:.2f}"


def amount(num_bytes: int) -> str:
    """Returns bytes with the unit that suits them."""
    return f"{num_bytes / GIB:.1f} GiB" if num_bytes >= GIB else f"{num_bytes / MIB:.0f} MiB"


def percent(share: float) -> str:
    """Returns a share as a percentage; only exact shares show 0 or 100."""
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
