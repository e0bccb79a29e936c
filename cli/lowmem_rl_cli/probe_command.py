"""`lowmem-rl probe`: the base model's pass rate, and the group size that it needs."""

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from shlex import join

from lowmem_rl.evaluation.pass_rate_probe import PassRateProbe
from lowmem_rl.signal.signal_report import RECOMMENDATION, SignalReport
from lowmem_rl.storage.run_dir import default_probe_path, new_file
from lowmem_rl_cli import console
from lowmem_rl_cli.options import RunRequest

_BAR = 30
"""Characters of the longest bar."""


def probe_command(request: RunRequest, *, examples: int, samples: int, out: Path | None, as_json: bool) -> None:
    """Probes the base model and prints the counts."""
    from lowmem_rl.entrypoints.probe_pass_rate import run_probe
    from lowmem_rl_cli.live_view import watched

    resolved = request.resolve()
    place = nullcontext(out) if out else new_file(default_probe_path(resolved.preset))
    with place as path, watched(f"{resolved.preset}: probing {resolved.config.model.name}") as show:
        result = run_probe(resolved, num_examples=examples, samples=samples, path=path, listen=show)
    if as_json:
        console.show_json(result.probe.to_json() | {"group": result.signal.to_json(), "path": str(path)})
    else:
        lines = [*_counts(result.probe), "", *_meaning(result.signal), "", *_next_step(request, path)]
        console.show("\n".join(lines))


def _counts(probe: PassRateProbe) -> Iterator[str]:
    low, high = probe.interval.low, probe.interval.high
    yield f"{probe.model} on {probe.task}: {probe.pass_rate:.3f} right [{low:.3f}, {high:.3f}]"
    yield f"{len(probe.examples)} examples, {probe.samples} samples each; {100 * probe.truncated_share:.1f} % cut off"
    yield ""
    yield f"right of {probe.samples}   examples"
    histogram = Counter(example.passed for example in probe.examples)
    most = max(histogram.values())
    for passed in range(probe.samples + 1):
        bar = "█" * round(_BAR * histogram[passed] / most)
        yield f"{passed:>10}   {bar}{' ' if bar else ''}{histogram[passed]}"


def _meaning(signal: SignalReport) -> Iterator[str]:
    carry, dead = 100 * signal.informative_share, 100 * signal.dead_step_probability
    yield f"Groups of {signal.group_size}, {signal.prompts_per_step} a step: {carry:.0f} % carry signal"
    yield f"and {dead:.1f} % of the steps carry none. Verdict: {signal.verdict}."
    for finding in signal.findings:
        yield f"{finding.level}: {finding.what}; {finding.fix}"
    if signal.is_nearly_never_right:
        yield "No group size helps at this pass rate: first the model has to be right sometimes."
        return
    yield f"Recommended are groups of {signal.recommended_group_size}: {RECOMMENDATION}."
    smallest = signal.smallest_group_size
    yield (
        f"The smallest group with signal in four of five: {smallest}."
        if smallest
        else "No group size gives signal in four of five groups on this data."
    )


def _next_step(request: RunRequest, path: Path) -> Iterator[str]:
    same_run = [] if request.preset is None else ["--preset", request.preset]
    starts = [] if request.start is None else ["--from", request.start]
    for file in request.config_files:
        same_run += ["--config", str(file)]
    for setting in (*request.settings, *([f"task.name={request.task}"] if request.task else [])):
        same_run += ["--set", setting]
    yield f"The counts are in {path}. Plan with them, then train:"
    for command in ("profile", "train"):
        begun = starts if command == "train" else []
        yield "  " + join(["lowmem-rl", command, *same_run, *begun, "--pass-rate", str(path)])
