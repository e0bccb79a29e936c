"""Asks verl itself, without a card, what it makes of `scale-out --to verl`, and writes the record.

scripts/setup-verl
.venv/bin/python -m benchmarks.verl --out benchmarks/records/scale-out-verl.json
"""

import argparse
import platform
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.verl.answers import LOSSES, PREFILLS, ask_verl, verl_python
from benchmarks.verl.asked import TYPOS, WRONG
from benchmarks.verl.comparisons import advantage_error, equal_scores, gradient_error, own_prompts, own_scores
from benchmarks.verl.trl_loss import off_policy_batch
from lowmem_rl.storage.run_dir import write_json


def main() -> int:
    """Writes the record; the exit code is 3 without verl's environment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/records/scale-out-verl.json"))
    out, python = parser.parse_args().out, verl_python()
    if python is None:
        print("error: verl's environment is not here.\nhint: scripts/setup-verl makes it.", file=sys.stderr)
        return 3
    with tempfile.TemporaryDirectory() as folder:
        found = record_of(python, Path(folder))
    about = {"date": date.today().isoformat(), "command": f"python -m benchmarks.verl --out {out}"}
    write_json(out, about | {"machine": f"{platform.machine()}, CPU"} | found)
    return 0


def record_of(python: Path, folder: Path) -> dict[str, Any]:
    """Returns what was compared, and with what result."""
    batch = off_policy_batch()
    asked = ask_verl(python, folder, batch)
    configs = {name: answer for name, answer in asked.answers.items() if name.startswith("config/")}
    return {
        "versions": asked.answers["versions"],
        "configurations": len(configs),
        "overrides": {name.partition("/")[2]: len(answer["values"]) for name, answer in configs.items()},
        "dataclasses": sorted({kind for answer in configs.values() for kind in answer["dataclasses"]}),
        "refused": {"keys": f"{len(asked.answers['refusals']['keys'])} of {len(TYPOS)}"}
        | {"values": f"{len(asked.answers['refusals']['values'])} of {len(WRONG)}"},
        "equal_rewards": {name: f"{equal_scores(asked, name)} of {len(own_scores(asked, name))}" for name in PREFILLS},
        "equal_prompts": {
            name: sum(map(list.__eq__, asked.answers[f"prompts/{name}"], own_prompts(asked, name))) for name in PREFILLS
        },
        "gradient_error": {
            name: {f"{processes} cards": gradient_error(asked, batch, name, processes) for processes in (1, 2)}
            for name in LOSSES
        },
        "advantage_error": {name: advantage_error(asked, batch, name) for name in LOSSES},
    }


if __name__ == "__main__":
    sys.exit(main())
