"""Checks that a change of the code changes no run: trains at a revision and here with one seed, and compares.

    python scripts/same_run.py REV [--preset tiny-cpu] [--seed 0] [--steps N] [further options of `train`]

Only the command line is used, so REV may have other modules. Compared are metrics.jsonl and eval.json value by value,
except for what is measured (seconds, bytes); order.jsonl, samples.jsonl and eval/ byte by byte; the adapter bit by bit.
Exit code 0 if all is equal, 1 if not, 2 if a run fails. On a CPU equal code gives equal runs.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NOT_COMPARED = re.compile(r".*(_s|seconds|peak_bytes)$|note$")
"""Keys of times, speeds and memory of the process (`step_s`, `completion_tokens_per_s`), and of a sentence to read."""
LOG_TAIL = 2000

Values = dict[str, Any]
Content = Callable[[Path], Values]


@contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """Yields a temporary worktree of the revision. Raises `CalledProcessError` if git does not know it."""
    with tempfile.TemporaryDirectory(prefix="same-run-") as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", tree, revision], cwd=ROOT, check=True)
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=True)


def train(tree: Path, out: Path, options: list[str]) -> None:
    """Trains with the code of `tree`, in its own process and working directory. Raises `SystemExit` if that fails."""
    out.mkdir()
    command = [sys.executable, "-m", "lowmem_rl_cli", "train", f"--out={out / 'run'}", *options]
    paths = os.pathsep.join([str(tree), str(tree / "cli")])
    environment = {"OMP_NUM_THREADS": "1"} | os.environ | {"PYTHONPATH": paths}  # sums depend on the threads
    done = subprocess.run(command, cwd=out, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"The run of {tree} ended with {done.returncode}:\n{done.stderr[-LOG_TAIL:]}", file=sys.stderr)
        raise SystemExit(2)


# -- what is compared -------------------------------------------------------------------


def lines(path: Path) -> Values:
    """Returns the lines of a file by number."""
    return {f"line {number}": line for number, line in enumerate(path.read_bytes().splitlines(), 1)}


def metric_values(path: Path) -> Values:
    """Returns the values of rows without measurements, by row and key."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return {f"row {n}, {key}": value for n, row in enumerate(rows, 1) for key, value in _leaves(row)}


def json_values(path: Path) -> Values:
    """Returns the leaves of a JSON file, without measurements, by dotted key."""
    return dict(_leaves(json.loads(path.read_text("utf-8"))))


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if parts is None:
        yield path, value
        return
    for key, part in parts:
        if not NOT_COMPARED.match(str(key)):
            yield from _leaves(part, f"{path}.{key}" if path else str(key))


def tensors(path: Path) -> Values:
    """Returns type, shape and bytes of each tensor (https://huggingface.co/docs/safetensors: the format)."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    return {
        name: (
            about["dtype"],
            about["shape"],
            content[start + about["data_offsets"][0] : start + about["data_offsets"][1]],
        )
        for name, about in header.items()
    }


COMPARED: dict[str, Content] = {
    "metrics.jsonl": metric_values,
    "order.jsonl": lines,
    "samples.jsonl": lines,
    "eval.json": json_values,
    "eval/**/*.jsonl": lines,
    "adapter/*.safetensors": tensors,
}


def differences(then: Values, now: Values) -> Iterator[str]:
    """Yields what differs, in order: the place and both values."""
    for key in {**then, **now}:
        before, after = then.get(key, "nothing"), now.get(key, "nothing")
        if before != after:
            yield f"{key}: {_shown(before)} became {_shown(after)}"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"other values ({value[0]} {value[1]})"
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text if len(text) <= 200 else text[:200] + "..."


def compare(then: Path, now: Path) -> str | None:
    """Prints a table of both run directories; returns the first difference."""
    first = None
    for pattern, content in COMPARED.items():
        names = sorted({str(path.relative_to(run)) for run in (then, now) for path in run.glob(pattern)})
        for name in names or [pattern]:
            values = [content(run / name) if (run / name).exists() else {} for run in (then, now)]
            found = list(differences(*values)) if any(values) else ["is missing in both"]
            print(f"{name:32} {len(values[1]):6} values   {f'{len(found)} differ' if found else 'equal'}")
            first = first or (f"{name}, {found[0]}" if found else None)
    return first


def main() -> int:
    parser = argparse.ArgumentParser(description="Trains at a revision and here with one seed, and compares.")
    parser.add_argument("revision")
    parser.add_argument("--preset", default="tiny-cpu")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--steps")
    known, others = parser.parse_known_args()
    options = [f"--preset={known.preset}", f"--seed={known.seed}", *others]
    options += [f"--steps={known.steps}"] if known.steps else []
    with checkout(known.revision) as tree:
        for which, code in (("then", tree), ("now", ROOT)):
            train(code, tree.parent / which, options)
        first = compare(tree.parent / "then" / "run", tree.parent / "now" / "run")
    print(f"First difference: {first}" if first else f"The run is that of {known.revision}.")
    return int(first is not None)


if __name__ == "__main__":
    sys.exit(main())
