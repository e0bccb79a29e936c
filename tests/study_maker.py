"""Writes a study's directory as `experiment run` leaves it, for tests of its readers."""

from math import exp
from pathlib import Path
from random import Random

from lowmem_rl.experiment.study import parse_study
from lowmem_rl.experiment.study_dir import StudyDir
from lowmem_rl.experiment.trials import Trial, final_trials
from lowmem_rl.stats import wilson
from lowmem_rl.storage.run_dir import Row, RunDir, read_json, write_json, write_rows
from lowmem_rl.units import GIB
from tests.run_maker import HOSTILE, begin, metric_row

STUDY = """
[study]
name = "which-layers"
preset = "tiny-cpu"
seeds = [0, 1, 2, 3, 4]
baseline = "lora-all"
metric = "pass_at_1"

[study.set]
"grpo.steps" = 30

[tune]
seeds = [100]
"optimizer.learning_rate" = [3e-4, 1e-3]

[arms.lora-all]
[arms.lora-last-5]
"trainable.layers" = "last:5"
[arms.full-first-5]
"trainable.method" = "full"
"trainable.layers" = "first:5"
[arms.full-last-5]
"trainable.method" = "full"
"trainable.layers" = "last:5"
[arms.full-last]
"trainable.method" = "full"
"trainable.layers" = "last:1"
[arms.unfrozen-from-the-last-layer-down]
"trainable.schedule" = "gradual"
"""
STEPS, LAYERS, ITEMS = 30, 28, 50
ENDS = {
    "lora-all": (0.62, 8.0, "0-27"),
    "lora-last-5": (0.60, 7.2, "23-27"),
    "full-first-5": (0.72, 9.9, "0-4"),
    "full-last-5": (0.50, 9.1, "23-27"),
    "full-last": (0.42, 7.6, "27"),
    "unfrozen-from-the-last-layer-down": (0.61, 8.9, ""),
}
"""Accuracy at the end, peak in GiB, layers; none: one more, from the last down, in each step."""


def make_study(path: Path, *, hostile: bool = False) -> StudyDir:
    """Writes a study of six arms and five seeds, one of whose runs failed; a hostile one has markup for findings."""
    study = parse_study(STUDY, "s")
    directory = StudyDir.create(path, study)
    directory.write(study, {f"task/{arm}": 1 for arm in ENDS})
    for trial in final_trials(study):
        failed = (trial.arm, trial.seed) == ("full-last-5", 3)
        _write_run(RunDir(path / trial.place), trial, steps=12 if failed else STEPS, hostile=hostile)
        directory.append(
            trial, exit_code=5 if failed else 0, failed=failed, machine="farm-7", seconds=900.0 + trial.seed
        )
    return directory


def _write_run(run: RunDir, trial: Trial, *, steps: int, hostile: bool) -> None:
    end, peak_gib, layers = ENDS[trial.arm]
    drawn = Random(f"{trial.arm}/{trial.seed}")
    chosen = {"trainable__layers": "last:5"} if "last-5" in trial.arm else {}
    begin(run, {"grpo__steps": STEPS, **chosen})
    write_json(run.estimate, read_json(run.estimate) | {"num_layers": LAYERS})
    shift = drawn.gauss(0, 0.02)
    shares = [0.3 + (end + shift - 0.3) * (1 - exp(-step / 10)) + drawn.gauss(0, 0.01) for step in range(1, steps + 1)]
    rows = [_row(step, share, peak_gib, layers) for step, share in enumerate(shares, 1)]
    write_rows(run.metrics, rows)
    evaluations = {0: "before", steps // 2: f"step-{steps // 2:06d}"} | ({STEPS: "after"} if steps == STEPS else {})
    found = {name: _evaluate(run, name, step, shares[step - 1] if step else 0.3) for step, name in evaluations.items()}
    about = {"before": found["before"], "during": [found[f"step-{steps // 2:06d}"]]}
    write_json(
        run.evaluations, about | ({"after": found["after"], "comparison": {"gain": 0.1}} if "after" in found else {})
    )
    names = [HOSTILE[0]] if hostile else ["truncation_wall"] if trial.arm == "full-last" and trial.seed < 2 else []
    write_json(run.health, {"step": steps, "findings": [{"name": name} for name in names]})


def _row(step: int, share: float, peak_gib: float, layers: str) -> Row:
    learned = layers or f"{max(0, LAYERS - step)}-{LAYERS - 1}"
    about = {"reward": share, "accuracy": share, "step_s": 20 + peak_gib, "peak_bytes": int(peak_gib * GIB)}
    return metric_row(step, STEPS) | about | {"trainable_layers": learned, "trainable_numbers": 10_000_000}


def _evaluate(run: RunDir, name: str, step: int, share: float) -> Row:
    right = round(max(0.0, min(1.0, share)) * ITEMS)
    items = [{"example_id": f"gsm8k/{n}", "correct": n < right, "strict": n < right} for n in range(ITEMS)]
    asked = {"prompt": "?", "answer": "6", "completion": "6", "tokens": 9, "truncated": False, "scores": {}}
    write_rows(run.eval_items(name), [item | asked for item in items])
    interval = wilson(right, ITEMS)
    shares = {"pass_at_1": right / ITEMS, "strict_pass_at_1": right / ITEMS}
    ends = {f"{key}_interval": {"low": interval.low, "high": interval.high} for key in shares}
    return {"task": "gsm8k", "split": "test", "step": step, "num_examples": ITEMS, **shares, **ends}
