"""What `lowmem_rl.run` returns."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowmem_rl.evaluation.eval_result import EvalResult
from lowmem_rl.training.eval_schedule import BestCheckpoint


@dataclass(frozen=True, slots=True)
class RunResult:
    """The run directory, and what the run was worth."""

    path: Path
    before: EvalResult
    after: EvalResult
    comparison: Mapping[str, Any]
    """What was gained, as eval.json holds it."""
    best: BestCheckpoint
