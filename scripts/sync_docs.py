"""Writes what the documents say about the code from the code itself.

A block stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->`; `BLOCKS` says what fills
it, all other text stays as it is. With `--check` nothing is written: where a block is out of
date, the difference is printed and the exit code is 1.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from difflib import unified_diff
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("*.md", "presets/*.md", "docs/**/*.md", "benchmarks/**/*.md", "examples/*.md")
BLOCK = re.compile(r"(?P<begin><!-- (?P<name>[\w-]+):begin -->\n).*?(?P<end><!-- (?P=name):end -->)", re.DOTALL)


def presets_block() -> str:
    """Returns the table of all presets: what each is for, estimated and measured memory."""
    from lowmem_rl.planning.presets_table import presets_table

    return presets_table()


def memory_score_block() -> str:
    """Returns the estimate's error by stack over the committed rows of published measurements."""
    from lowmem_rl.memory.accuracy import score
    from lowmem_rl.memory.measured_rows import read_rows

    summary = score(read_rows(ROOT / "benchmarks/records/memory_rows.json")).summary
    stacks = summary["by_stack"] | {"all": summary["errors"]}
    head = ("stack, loss, method", "allocated: rows, mean, worst", "process: rows, mean, worst")
    rows = [head, ("---",) * len(head)]
    rows += [(name, _errors(found, "allocated"), _errors(found, "process")) for name, found in stacks.items()]
    rows.append(("unsloth grpo qlora", "unvalidated: nobody has published one", ""))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _errors(found: dict[str, Any], measured: str) -> str:
    error = found.get(measured)
    return f"{error['rows']}, {error['mean_error']:.1%}, {error['worst_error']:+.1%}" if error else "-"


def cli_block() -> str:
    """Returns the help page of every command, the same whatever terminal this runs in."""
    os.environ["COLUMNS"] = "100"
    from lowmem_rl_cli.app import app
    from typer.main import get_command

    return "\n\n".join(_help_section(path) for path in _command_paths(get_command(app)))


def health_block() -> str:
    """Returns what the audit looks for, each with the least evidence on which it speaks."""
    from lowmem_rl.health.audit import DETECTORS

    rows = [("finding", "least evidence", "what it is"), ("---",) * 3]
    rows += [(f"`{one.name}`", str(one.needs), _first_paragraph(one.detect)) for one in DETECTORS]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def health_record_block() -> str:
    """Returns what the committed record says of failures that were provoked and of healthy runs beside them."""
    record = json.loads((ROOT / "benchmarks/records/health-2026-11-20.json").read_text())
    head = ("provoked failure", "what was done", "there since step", "named after step", "told besides")
    rows: list[tuple[str, ...]] = [head, ("---",) * len(head)]
    rows += [_failure(run) for run in record["runs"] if run["expected"]]
    healthy = [run for run in record["runs"] if not run["expected"]]
    said = [f"{run['case']}, seed {run['seed']}: {_told(run['told'])}" for run in healthy if run["told"]]
    count = f"{len(healthy)} healthy runs: {len(healthy) - len(said)} were told nothing."
    alike = sum(run["same_beside_the_run"] for run in record["runs"])
    beside = f"Beside {alike} of {len(record['runs'])} runs the watcher had said the same as here, to the step."
    back = [_going_back(run) for run in record["roll_back"]]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", " ".join([count, *(f"{one}." for one in said), beside]), "", *back])


def _going_back(run: dict[str, Any]) -> str:
    steps = ", ".join(f"after step {row['step']} to step {row['to']}" for row in run["rollbacks"])
    return (
        f"A run whose learning rate climbed to forty times the preset's, seed {run['seed']}: it went back {steps}. "
        f"Held-out accuracy at its best healthy checkpoint {run['best_healthy_checkpoint']:.2f}, in the end "
        f"{run['after']:.2f}, on {run['examples']} examples."
    )


def _failure(run: dict[str, Any]) -> tuple[str, ...]:
    named = next((told for told in run["told"] if told[1] in run["expected"]), None)
    others = [told for told in run["told"] if told != named]
    found = f"{named[0]}: `{named[1]}`" if named else "missed"
    return run["case"], run["about"], str(run["onset"]), found, _told(others)


def _told(told: list[list[Any]]) -> str:
    return ", ".join(f"`{name}` ({severity}, {step})" for step, name, severity in told) or "nothing"


def _first_paragraph(of: Callable[..., Any]) -> str:
    """Of the module in which something is defined."""
    about = sys.modules[of.__module__].__doc__ or ""
    return " ".join(about.partition("\n\n")[0].split())


def _command_paths(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            yield from _command_paths(child, (*path, name))


def _help_section(path: tuple[str, ...]) -> str:
    from lowmem_rl_cli.app import app
    from typer.testing import CliRunner

    page = CliRunner().invoke(app, [*path, "--help"], prog_name="lowmem-rl").output
    lines = [line.rstrip() for line in page.strip().splitlines()]
    return "\n".join([f"## {' '.join(['lowmem-rl', *path])}", "", "```text", *lines, "```"])


BLOCKS: dict[str, Callable[[], str]] = {
    "presets": presets_block,
    "memory-score": memory_score_block,
    "cli": cli_block,
    "health": health_block,
    "health-record": health_record_block,
}


def fill(text: str) -> str:
    """Returns a document with its blocks renewed. Raises `KeyError` for a block that nothing fills."""
    return BLOCK.sub(lambda block: f"{block['begin']}{BLOCKS[block['name']]().strip()}\n{block['end']}", text)


def documents() -> list[Path]:
    return sorted(path for pattern in DOCUMENTS for path in ROOT.glob(pattern))


def main(check: bool) -> int:
    """Renews all documents, or compares them; returns the exit code."""
    stale = 0
    for path in documents():
        old = path.read_text("utf-8")
        new = fill(old)
        if new == old:
            continue
        stale += 1
        if check:
            print(_difference(path, old, new))
        else:
            path.write_text(new, "utf-8")
            print(f"renewed {path.relative_to(ROOT)}")
    if check and stale:
        print("Generated blocks are out of date; renew them with: python scripts/sync_docs.py")
    return int(check and stale > 0)


def _difference(path: Path, old: str, new: str) -> str:
    name = str(path.relative_to(ROOT))
    return "\n".join(unified_diff(old.splitlines(), new.splitlines(), name, f"{name} (renewed)", lineterm=""))


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
