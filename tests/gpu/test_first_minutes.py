"""The script for a card's first minutes, on the card of this machine: `pytest -m gpu tests/gpu`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lowmem_rl.models.hardware import Machine

ROOT = Path(__file__).parents[2]


@pytest.mark.gpu
def test_the_first_minutes_run_to_their_end(machine: Machine, tmp_path: Path) -> None:
    script, out = ROOT / "benchmarks" / "gpu" / "first_minutes.py", tmp_path / "record.json"
    command = [sys.executable, str(script), "--quick", "--out", str(out), "--scratch", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads(out.read_text(encoding="utf-8"))["parts"]
    assert {part["status"] for part in parts} == {"done"}
