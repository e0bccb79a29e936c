"""Writes the parts of the documents that are generated from the code.

A block is the text between `<!-- NAME:begin -->` and `<!-- NAME:end -->`; `BLOCKS` holds what fills it, and all
other text stays. In presets it is the line of the peak in the comment on memory. `--check` writes nothing: it prints
what is out of date, and the exit code is then 1.
"""

import json
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from difflib import unified_diff
from inspect import cleandoc
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("*.md", "presets/*.md", "docs/**/*.md", "benchmarks/**/*.md", "examples/*.md")
PRESETS = "presets/*.toml"
BLOCK = re.compile(r"(?P<begin><!-- (?P<name>[\w-]+):begin -->\n).*?(?P<end><!-- (?P=name):end -->)", re.DOTALL)


def presets_block() -> str:
    """Returns the table of all presets, with estimated and measured memory."""
    from lowmem_rl.planning.presets_table import presets_table

    return presets_table()


def memory_score_block() -> str:
    """Returns the estimate's error by stack over the rows it was made with, next to rows that it had never seen."""
    from lowmem_rl.memory.accuracy import score
    from lowmem_rl.memory.measured_rows import read_rows

    files = ("memory_rows.json", "memory_rows_2026-11-28.json")
    own, later = (score(read_rows(ROOT / "benchmarks/records" / file)).summary for file in files)
    head = ("stack, loss, method", "own: allocated", "own: process", *(f"later: {kind}" for kind in _KINDS))
    stacks = dict.fromkeys([*sorted({*own["by_stack"], *later["by_stack"]})])
    found = {name: (own["by_stack"].get(name, {}), later["by_stack"].get(name, {})) for name in stacks}
    found |= {"all of one length": (own["errors"], later["errors"]), "varying": (own["varying"], later["varying"])}
    rows = [
        (name, *(_errors(first, kind) for kind in ("allocated", "process")), *(_errors(second, k) for k in _KINDS))
        for name, (first, second) in found.items()
    ]
    return _table(head, [*rows, ("unsloth grpo qlora", "unvalidated: nobody has published one", *[""] * 4)])


_KINDS = ("allocated", "reserved", "process")


def memory_peers_block() -> str:
    """Returns the errors of other estimators over the same rows, from their committed record."""
    summary = json.loads((ROOT / "benchmarks/records/memory-peers.json").read_text())["summary"]
    tools = ("lowmem-rl", "fitcheck-llm", "unsloth studio", "accelerate")
    rows = [
        (file, stack, str(found["lowmem-rl"]["rows"]), *(_mean_and_worst(found.get(tool)) for tool in tools))
        for file, stacks in summary.items()
        for stack, found in stacks.items()
    ]
    return _table(("rows", "stack, loss, method", "number", *tools), rows)


def _mean_and_worst(found: dict[str, float] | None) -> str:
    return f"{found['mean']:.0%}, {found['worst']:+.0%}" if found else "-"


def _errors(found: dict[str, Any], measured: str) -> str:
    error = found.get(measured)
    return f"{error['rows']}, {error['mean_error']:.1%}, {error['worst_error']:+.1%}" if error else "-"


def cli_block() -> str:
    """Returns the help page of every command."""
    os.environ["COLUMNS"] = "100"  # the same page in every terminal
    from lowmem_rl_cli.app import app
    from typer.main import get_command

    return "\n\n".join(_help_section(path) for path in _command_paths(get_command(app)))


def settings_block() -> str:
    """Returns every setting by section: what it takes, its default, what it means."""
    from lowmem_rl.config.keys import known_keys

    lines, section = [], ""
    for key in known_keys().values():
        name = key.name.partition(".")[0]
        if name != section:
            lines += [f"## {name}", ""]
            section = name
        takes = key.takes.replace("|", "\\|")
        lines += [f"### `{key.name}`", "", f"{takes}; default `{_as_toml(key.default)}`", "", key.doc.strip(), ""]
    return "\n".join(lines)


def _as_toml(value: object) -> str:
    from lowmem_rl.config.toml_text import toml_value

    return "unset" if value is None else toml_value(value)


def step_block() -> str:
    """Returns the docstring of the step as Markdown."""
    from lowmem_rl.training import step

    return cleandoc(step.__doc__ or "")


def health_block() -> str:
    """Returns the findings of the audit, each with the evidence that it needs."""
    from lowmem_rl.health.audit import DETECTORS

    rows = [(f"`{one.name}`", str(one.needs), _first_paragraph(one.detect)) for one in DETECTORS]
    return _table(("finding", "least evidence", "what it is"), rows)


def health_record_block() -> str:
    """Returns the committed record of failures that were provoked and of healthy runs."""
    record = json.loads((ROOT / "benchmarks/records/health-2026-11-20.json").read_text())
    head = ("provoked failure", "what was done", "there since step", "named after step", "other findings")
    table = _table(head, [_failure(run) for run in record["runs"] if run["expected"]])
    healthy = [run for run in record["runs"] if not run["expected"]]
    with_findings = [(run["case"], run["seed"], _findings(run["told"])) for run in healthy if run["told"]]
    same = sum(run["same_beside_the_run"] for run in record["runs"])
    sentences = [
        f"{len(healthy)} healthy runs: {len(healthy) - len(with_findings)} had no finding.",
        *(f"{case}, seed {seed}: {findings}." for case, seed, findings in with_findings),
        f"In {same} of {len(record['runs'])} runs the audit during the run reported the same, at the same steps.",
    ]
    return "\n".join([table, "", " ".join(sentences), "", *map(_rolled_back, record["roll_back"])])


def _rolled_back(run: dict[str, Any]) -> str:
    steps = ", ".join(f"after step {row['step']} to step {row['to']}" for row in run["rollbacks"])
    return (
        f"A run whose learning rate rose to forty times the preset's, seed {run['seed']}: it was rolled back {steps}. "
        f"Held-out accuracy at its best healthy checkpoint {run['best_healthy_checkpoint']:.2f}, at the end "
        f"{run['after']:.2f}, on {run['examples']} examples."
    )


def _failure(run: dict[str, Any]) -> tuple[str, ...]:
    named = next((found for found in run["told"] if found[1] in run["expected"]), None)
    others = [found for found in run["told"] if found != named]
    expected = f"{named[0]}: `{named[1]}`" if named else "missed"
    return run["case"], run["about"], str(run["onset"]), expected, _findings(others)


def _findings(found: list[list[Any]]) -> str:
    return ", ".join(f"`{name}` ({severity}, {step})" for step, name, severity in found) or "none"


def layers_block() -> str:
    """Returns the layers that import-linter checks, as far as their rooms exist, the highest first."""
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    rooms, packages = rules[0]["layers"], rules[1]["layers"][:-1]
    library = ([room.strip("( )") for room in layer.split("|")] for layer in rooms)
    here = {path.stem for path in (ROOT / "lowmem_rl").iterdir()}
    rows = [[room for room in layer if room in here] for layer in library]
    lines = [*packages, *(" | ".join(row) for row in rows if row)]
    width = max(map(len, lines))
    return "\n".join(["```text", *(line.center(width).rstrip() for line in lines), "```"])


def words_block() -> str:
    """Returns the words that `scripts/check_words.py` counts, and what to write instead."""
    from scripts.check_words import INSTEAD

    rows = [(", ".join(words.split()), instead) for words, instead in INSTEAD.items()]
    return _table(("not", "but"), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


def _first_paragraph(defined: Callable[..., Any]) -> str:
    """Returns it from the docstring of the module that defines a function."""
    about = sys.modules[defined.__module__].__doc__ or ""
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
    "memory-peers": memory_peers_block,
    "cli": cli_block,
    "settings": settings_block,
    "step": step_block,
    "health": health_block,
    "health-record": health_record_block,
    "layers": layers_block,
    "words": words_block,
}


PEAK = re.compile(r"^#   peak\b.*$", re.MULTILINE)
"""The line of a preset that says what all of it comes to."""


def fill_preset(path: Path, text: str) -> str:
    """Returns a preset whose comment has the planner's peak."""
    from lowmem_rl.planning.presets_table import peak_of

    if not PEAK.search(text):
        return text
    return PEAK.sub(f"#   peak, expected and at most, by `lowmem-rl profile`: {peak_of(path.stem)}", text)


def fill(text: str) -> str:
    """Returns a document with new blocks. Raises `KeyError` if nothing fills one."""
    return BLOCK.sub(lambda block: f"{block['begin']}{BLOCKS[block['name']]().strip()}\n{block['end']}", text)


def main(check: bool) -> int:
    """Writes all documents, or compares them; returns the exit code."""
    stale = 0
    for path in sorted(path for pattern in (*DOCUMENTS, PRESETS) for path in ROOT.glob(pattern)):
        old = path.read_text("utf-8")
        new = fill_preset(path, old) if path.suffix == ".toml" else fill(old)
        if new == old:
            continue
        stale += 1
        name = str(path.relative_to(ROOT))
        if check:
            print(*unified_diff(old.splitlines(), new.splitlines(), name, f"{name} (new)", lineterm=""), sep="\n")
        else:
            path.write_text(new, "utf-8")
            print(f"wrote {name}")
    if check and stale:
        print("Generated blocks are out of date; write them with: python scripts/sync_docs.py")
    return int(check and stale > 0)


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
