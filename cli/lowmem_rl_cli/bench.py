"""`lowmem-rl bench`: ours against others, on the same input."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lowmem_rl_cli import console
from lowmem_rl_cli.options import JsonOption, command_group

app = command_group("Measure ours against others.")

RecordOption = Annotated[Path | None, typer.Option("--out", help="File for the whole record, as JSON.", metavar="FILE")]


@app.command("verify")
def bench_verify(
    as_json: JsonOption = False,
    out: RecordOption = None,
    scale: Annotated[
        float, typer.Option("--scale", help="Share of the pairs to judge; 1 takes some minutes.", min=0.001, max=1)
    ] = 1.0,
) -> None:
    """Compare verdicts on answers with Math-Verify's: right ones, wrong ones, and time."""
    from lowmem_rl.bench.verify import describe, measure

    if out is not None:
        _check_writable(out)
    record = measure(scale)
    if out is not None:
        out.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        console.say(f"Wrote {out}.")
    if as_json:
        console.show_json(record)
    else:
        console.show(describe(record))


def _check_writable(file: Path) -> None:
    """Raises `ConfigError` before minutes of work rather than behind them."""
    from lowmem_rl.errors import ConfigError

    try:
        file.open("a", encoding="utf-8").close()
    except OSError as error:
        raise ConfigError(
            f"Cannot write {str(file)!r}: {error}.", hint="Choose a place that can be written."
        ) from error
