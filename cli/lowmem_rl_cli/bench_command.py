"""`lowmem-rl bench`: ours against others, on the same input."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from lowmem_rl_cli import console
from lowmem_rl_cli.options import (
    ConfigOption,
    JsonOption,
    ModelOption,
    PresetOption,
    RunRequest,
    SetOption,
    command_group,
    option,
)

app = command_group("Measure ours against others.")

RecordOption = Annotated[Path | None, option("--out", "File for the whole record, as JSON.", "FILE")]
ScaleOption = Annotated[
    float, option("--scale", "Share of the pairs to compare; 1 takes some minutes.", min=0.001, max=1)
]
ArmsOption = Annotated[
    list[str] | None, option("--arms", "Compare ours with this arm alone; repeatable. `ours`: with none.", "NAME")
]
PrecisionOption = Annotated[
    list[str] | None,
    option("--precision", "Measure in this precision alone: preset or fp32; repeatable.", "NAME"),
]
ShapesOption = Annotated[
    list[str] | None, option("--shapes", "Replay these lengths alone: skewed or equal; repeatable.", "NAME")
]
LiveOption = Annotated[bool, option("--live", "Also measure the time to a reward, with real sampling and five seeds.")]
AblationsOption = Annotated[bool, option("--ablations", "Also measure ours with one saving off at a time.")]
SavingOption = Annotated[
    list[str] | None, option("--saving", "Measure ours without this saving alone, and no other stack.", "NAME")
]
SweepOption = Annotated[
    bool, option("--sweep", "Also vary group size, lengths, spread and dead groups, and fit the cost.")
]
RoundsOption = Annotated[int, option("--rounds", "Timed steps of each arm; 8 make ten with the warm-up.", min=1)]
PlotOption = Annotated[
    Path | None,
    option("--plot", "File for a picture of the ratios, as SVG; needs the extra `slides`.", "FILE"),
]


@app.command("verify")
def bench_verify(as_json: JsonOption = False, out: RecordOption = None, scale: ScaleOption = 1.0) -> None:
    """Compare verdicts on answers with Math-Verify's: right ones, wrong ones, and time."""
    from lowmem_rl_bench.verify_speed import describe, measure

    if out is not None:
        check_writable(out)
    record = measure(scale)
    if out is not None:
        _write(out, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    if as_json:
        console.show_json(record)
    else:
        console.show(describe(record))


@app.command("step")
def bench_step(
    preset: PresetOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    model: ModelOption = None,
    arms: ArmsOption = None,
    precision: PrecisionOption = None,
    shapes: ShapesOption = None,
    live: LiveOption = False,
    ablations: AblationsOption = False,
    saving: SavingOption = None,
    sweep: SweepOption = False,
    rounds: RoundsOption = 8,
    as_json: JsonOption = False,
    out: RecordOption = None,
    plot: PlotOption = None,
) -> None:
    """Compare a training step with plain TRL's and Unsloth's: the same tokens, the same gradients, other seconds."""
    from lowmem_rl_bench.step.choice import chosen_protocol
    from lowmem_rl_bench.step.plot import draw, figure_class
    from lowmem_rl_bench.step.run_bench import measure
    from lowmem_rl_cli.bench_view import render
    from lowmem_rl_cli.text_page import stdout_page

    for file in filter(None, (out, plot)):
        check_writable(file)
    if plot is not None:
        figure_class()  # a missing extra is reported before minutes of work
    protocol = chosen_protocol(arms or (), precision or (), shapes or (), savings=saving or (), rounds=rounds)
    composed = RunRequest(preset, tuple(config or ()), tuple(settings or ()), model=model).resolve()
    save = partial(_save, out)
    record = measure(composed, protocol, console.say, save, with_live=live, with_ablations=ablations, with_sweep=sweep)
    if out is not None:
        _write(out, _as_json(record))
    if plot is not None:
        _write(plot, draw(record))
    console.show_json(record) if as_json else console.show(render(record, stdout_page()))
    if not record["is_valid"]:
        raise typer.Exit(1)


def _save(out: Path | None, part: Mapping[str, Any]) -> None:
    """Writes what a long benchmark has measured so far."""
    if out is not None:
        out.write_text(_as_json(part), encoding="utf-8")


def _as_json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    console.say(f"Wrote {file}.")


def check_writable(file: Path) -> None:
    """Raises `ConfigError` before minutes of work if `file` cannot be written."""
    from lowmem_rl.errors import ConfigError

    try:
        file.open("a", encoding="utf-8").close()
    except OSError as error:
        raise ConfigError(f"Cannot write {str(file)!r}: {error}.", hint="Choose another file.") from error
