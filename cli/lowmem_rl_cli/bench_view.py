"""The page of `bench step`: the ratios, the time by phase, and whether the gradients are equal."""

from collections.abc import Iterator, Mapping
from typing import Any

from lowmem_rl.units import GIB
from lowmem_rl_cli.text_page import BOLD, DIM, GREEN, RED, YELLOW, TextPage

Record = Mapping[str, Any]

TITLES = {"skewed": "skewed lengths", "equal": "equal lengths"}
PHASES = ("rollout", "scoring", "update", "optimizer", "other")


def render(record: Record, page: TextPage) -> str:
    """Returns the page."""
    return "\n".join(_lines(record, page))


def _lines(record: Record, page: TextPage) -> Iterator[str]:
    yield page.ink(_headline(record), BOLD, GREEN if record["is_valid"] else RED)
    for precision, sets in record["replay"].items():
        for name, found in sets.items():
            where = record["preset"] if precision == "preset" else "float32, not quantised"
            yield from _replay(f"{where}, {TITLES[name]}", found, page)
    yield from _exactness(record, page)
    for part, draw in (("ablations", _ablations), ("sweep", _sweep), ("live", _live), ("same_noise", _same_noise)):
        if part in record:
            yield from draw(record[part], page)
    yield ""
    for name, about in record["arms"].items():
        yield from page.fold(f"{name}: {about}.", "", "  ", DIM)
    if record["plain_trl"]:
        yield from page.fold(record["plain_trl"], "", "", DIM)


def _headline(record: Record) -> str:
    if not record["is_valid"]:
        return "Void: the gradients differ, so no speed counts."
    if not record["ratios"]:
        return "What savings are worth." if "ablations" in record else "Ours, compared with none."
    for name, title in TITLES.items():  # the first shape that was measured
        ratios = {arm: found[f"replay_{name}"] for arm, found in record["ratios"].items() if found[f"replay_{name}"]}
        if ratios:
            times = ", ".join(f"{arm} {ratio:.1f} times" for arm, ratio in ratios.items())
            return f"A step takes {times} as long as ours{'' if name == 'skewed' else f' with {title}'}."
    return "Nothing is measured yet."


def _replay(title: str, found: Record, page: TextPage) -> Iterator[str]:
    work = found["workload"]
    size = f"{work['prompts']} x {work['group_size']} completions of {work['mean_completion_tokens']:.0f} tokens, "
    limits = f"at most {work['completion_tokens']}; prompts of {work['mean_prompt_tokens']:.0f}; "
    yield from page.heading(title, f"{size}{limits}{work['dead_groups']} groups dead")
    head = ("", "ratio", "95 % interval", "wall s", "CPU s", "tokens/s", "row-steps", "rows trained on", "GiB")
    rows = [_arm(name, arm, found) for name, arm in found["arms"].items()]
    yield from page.table(rows, "l" + "r" * (len(head) - 1), head, bold=0)
    yield ""
    rows = [_phases(name, arm, found["clock"]) for name, arm in found["arms"].items()]
    yield from page.table(rows, "lrrrrrr", ("seconds", *PHASES, "other"))
    yield from _products(found, page)
    clock = "By CPU time: other processes used the arms' core for more than a tenth of the time."
    if found["clock"] == "wall":
        clock = "By wall time: the arms had their core to themselves."
    yield from page.fold(clock, "  ", "", DIM)


def _arm(name: str, arm: Record, found: Record) -> tuple[str, ...]:
    ratio = found["ratios"][name][found["clock"]] if name in found["ratios"] else None
    return (
        name,
        f"{ratio['median']:.2f}x" if ratio else "1",
        f"{ratio['low']:.2f} to {ratio['high']:.2f}" if ratio else "",
        *(f"{arm['seconds'][clock]:.3f}" for clock in ("wall", "cpu")),
        f"{arm['useful_tokens_per_s']:.0f}",
        str(arm["sampled"]["row_steps"]),
        str(arm["updated"]["rows"]),
        f"{arm['peak_bytes'] / GIB:.2f}",
    )


def _products(found: Record, page: TextPage) -> Iterator[str]:
    """Yields how much of one more step, under a profiler, is inside matrix products, and how fast they are."""
    profiled = {name: arm["products"] for name, arm in found["arms"].items() if "products" in arm}
    if not profiled:
        return
    yield ""
    rows = []
    for name, products in profiled.items():
        shares = (f"{100 * products['shares'][part]:.0f} %" for part in ("products", "of_peak", "attention"))
        rows.append((name, *shares, f"{products['operations'] / 1e9:.0f}"))
    yield from page.table(rows, "lrrrr", ("share of a step", "products", "of peak", "attention", "10^9 operations"))
    peak = next(iter(profiled.values()))["peak"]
    speeds = ", ".join(f"{speed / 1e9:.0f} with {rows} rows" for rows, speed in peak.items())
    yield from page.fold(f"Peak of one thread here, 10^9 operations a second: {speeds}.", "  ", "", DIM)


def _phases(name: str, arm: Record, clock: str) -> tuple[str, ...]:
    """Returns each phase's seconds, and the share of the step outside all phases."""
    seconds = {phase: arm["phases"][phase][clock] for phase in PHASES}
    other = 100 * seconds["other"] / arm["seconds"][clock]
    return (name, *(f"{spent:.3f}" for spent in seconds.values()), f"{other:.1f} %")


def _exactness(record: Record, page: TextPage) -> Iterator[str]:
    yield from page.heading("Equal gradients", "max |g - g'| / max |g'| over all LoRA weights, ours and theirs")
    arms = list(record["ratios"])
    head = ("", *arms, "TRL, reordered")
    gradients, weights = [], []
    for precision, sets in record["replay"].items():
        for name, found in sets.items():
            own = found.get("row_order_error")
            errors = (f"{found['gradient_errors'][arm]:.1e}" for arm in arms)
            gradients.append((f"gradient, {precision}, {name}", *errors, "" if own is None else f"{own:.1e}"))
            errors = (f"{found['weight_errors'][arm]:.1e}" for arm in arms)
            weights.append((f"weights, {precision}, {name}", *errors, ""))
    if gradients:
        yield from page.table([*gradients, *weights], "l" + "r" * (len(arms) + 1), head)
    names = {"gradient_error": "first gradient", "weight_error": f"weights after {sum(record['steps'].values())} steps"}
    errors = (f"{names[kind]} {record[kind]:.1e}, limit {limit:.1e}" for kind, limit in record["limits"].items())
    yield from page.fold(f"Compared: {'; '.join(errors)}.", "  ", "", GREEN if record["is_valid"] else RED)


def _ablations(found: Record, page: TextPage) -> Iterator[str]:
    yield from page.heading("One saving off at a time", "times as long as ours")
    head = ("", "step", "95 % interval", "phase", "measured", "95 % interval", "predicted")
    rows = []
    for name, worth in found["worth"].items():
        step, predicted = worth["step"], worth["predicted_phase_ratio"]
        ratio = (f"{step['median']:.2f}x", f"{step['low']:.2f} to {step['high']:.2f}")
        low, high = worth["phase_interval"]
        phase = (worth["phase"], f"{worth['phase_ratio']:.2f}x", f"{low:.2f} to {high:.2f}")
        rows.append((name, *ratio, *phase, f"{predicted:.2f}x" if predicted else "-"))
    yield from page.table(rows, "lrrlrrr", head)


def _sweep(found: Record, page: TextPage) -> Iterator[str]:
    yield from page.heading("Growth", "seconds of rollout and update, measured and by the fitted law")
    head = ("", "", "ours", "by law", "trl_fair", "by law", "ratio", "by law", "GiB, ours")
    rows = []
    for point in found["points"]:
        ours, theirs = point["arms"]["ours"], point["arms"]["trl_fair"]
        cells = (f"{arm[kind]:.3f}" for arm in (ours, theirs) for kind in ("seconds", "by_law"))
        ratios = (f"{point['ratio']:.2f}x", f"{point['predicted_ratio']:.2f}x")
        rows.append((point["factor"], f"{point['value']:g}", *cells, *ratios, f"{ours['peak_bytes'] / GIB:.2f}"))
    yield from page.table(rows, "lrrrrrrrr", head)
    for arm, laws in found["laws"].items():
        for phase, law in laws.items():
            terms = " + ".join(f"{1e6 * cost:.1f} us x {name}" for name, cost in law["seconds_per"].items())
            yield from page.fold(f"{arm} {phase} = {terms}   (R^2 {law['r2']:.3f})")


def _live(found: Record, page: TextPage) -> Iterator[str]:
    limit = f"a reward of {found['target']:.2f}, mean of {found['window']} steps, at most {found['most_steps']} steps"
    yield from page.heading("Time to a reward", limit)
    head = ("", *(f"seed {seed}" for seed in found["seeds"]), "reached", "ratio", "95 % interval")
    rows = []
    for name, courses in found["courses"].items():
        times = (f"{one['seconds'][found['clock']]:.1f} s{'' if one['step'] else ' +'}" for one in courses)
        ratio = found["ratios"].get(name)
        cells = (f"{ratio['median']:.2f}x", f"{ratio['low']:.2f} to {ratio['high']:.2f}") if ratio else ("", "")
        rows.append((name, *times, f"{100 * found['reached_share'][name]:.0f} %", *cells))
    yield from page.table(rows, "l" + "r" * (len(head) - 1), head, bold=0)


def _same_noise(found: Record, page: TextPage) -> Iterator[str]:
    steps = len(next(iter(found["curves"].values())))
    verdict, colour = ("coincide", GREEN) if found["coincide"] else ("differ", YELLOW)
    equal = f"equal in the first {found['steps_alike']} of {steps} steps; largest difference of a step's reward "
    yield from page.heading("Same noise", "float32, ours and plain TRL with the same random numbers")
    yield from page.fold(f"The reward curves {verdict}: {equal}{found['largest_difference']:.2g}.", "  ", "", colour)
