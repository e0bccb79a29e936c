"""What verl answers about the folders of several runs, asked in one process of its environment."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowmem_rl.config.compose import read_assignments, resolve
from lowmem_rl.example import Example
from lowmem_rl.models.lookup import TINY_DIRECTORY
from lowmem_rl.scale_out.cluster import cluster_of
from lowmem_rl.scale_out.rows import example_of, read_rows
from lowmem_rl.scale_out.scale_out import scale_out

ROOT = Path(__file__).parents[2]
ENVIRONMENT = "LOWMEM_RL_VERL"
LOSSES: Mapping[str, tuple[str, ...]] = {
    "dapo": ("grpo.loss=dapo",),
    "dapo-kl": ("grpo.loss=dapo", "grpo.beta=0.04"),
    "grpo": ("grpo.loss=grpo",),
    "dr_grpo": ("grpo.loss=dr_grpo", "grpo.scale_rewards=none"),
}
HOSTILE_NAME = 'it\'s (touch owned) `touch owned` {a},b=c] #x "y" ; & | \\'
PREFILLS = {"plain": "", "thinking": "<think>\n", HOSTILE_NAME: ""}
"""What the chat template of a folder opens the assistant's turn with."""
_TEXTS = ("<think>a</think>\\boxed{%s}", "\\boxed{%s}", "a</think>\\boxed{%s}", "nothing %s")


def verl_python() -> Path | None:
    """Returns the interpreter that `scripts/setup-verl` has made, None if there is none."""
    folder = os.environ.get(ENVIRONMENT) or os.path.expanduser("~/.cache/lowmem-rl/verl")
    python = Path(folder, "bin", "python")
    return python if python.is_file() else None


@dataclass(frozen=True, slots=True)
class Asked:
    """The folders, what was asked about them, and what verl answered, by job."""

    folders: Mapping[str, Path]
    request: Mapping[str, Any]
    answers: Mapping[str, Any]

    def examples(self, name: str) -> list[Example]:
        """Returns the examples of a folder's training rows."""
        rows = read_rows(self.folders[name] / "data" / "train.parquet")
        return [example_of(row["reward_model"]["ground_truth"], row["extra_info"]) for row in rows]


def ask_verl(python: Path, folder: Path, batch: Mapping[str, Any]) -> Asked:
    """Writes runs into `folder`, and returns what verl makes of them. `batch` is one for the losses."""
    folders = _write_runs(folder)
    request: dict[str, Any] = {f"config/{name}": ["config", str(path)] for name, path in folders.items()}
    request["refusals"] = ["refusals", str(folders["plain"])]
    for name in PREFILLS:
        request[f"prompts/{name}"] = ["prompts", str(folders[name])]
        rows = read_rows(folders[name] / "data" / "train.parquet")[:25]
        pairs = [(n, text % row["reward_model"]["ground_truth"]) for n, row in enumerate(rows) for text in _TEXTS]
        request[f"rewards/{name}"] = ["rewards", str(folders[name]), pairs]
    for name in LOSSES:
        for processes in (1, 2):
            request[f"loss/{name}/{processes}"] = ["loss", str(folders[name]), dict(batch), processes]
        request[f"advantages/{name}"] = ["advantages", str(folders[name]), batch["rewards"]]
    (folder / "request.json").write_text(json.dumps(request), "utf-8")
    command = [str(python), "-m", "benchmarks.verl.asked", "request.json", "answer.json"]
    found = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    quiet = {"PYTHONPATH": found, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HYDRA_FULL_ERROR": "1"}
    done = subprocess.run(command, cwd=folder, env=os.environ | quiet, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stdout[-4000:] + done.stderr[-8000:])
    done.check_returncode()
    return Asked(folders, request, json.loads((folder / "answer.json").read_text("utf-8")))


def _write_runs(folder: Path) -> dict[str, Path]:
    thinking, hostile = _model(folder / "thinking-model", opens="<think>\n"), _model(folder / "model" / HOSTILE_NAME)
    some = (
        "trainable.layers=last:1", "rollout.top_k=20", "optimizer.schedule=cosine", "grpo.steps_per_rollout=2",
        "grpo.resample_rounds=1", "eval.every=0",
    )  # fmt: skip
    runs = {
        "plain": (),
        "thinking": (f"model.name={thinking}",),
        HOSTILE_NAME: (f"model.name={hostile}", *some),
        **LOSSES,
    }
    return {name: _write(folder / name, settings) for name, settings in runs.items()}


def _write(path: Path, settings: tuple[str, ...]) -> Path:
    common = ("optimizer.schedule=constant", "grpo.steps=8", "eval.examples=20")
    given = {setting.partition("=")[0]: setting for setting in (*common, *settings)}
    composed = resolve(preset="tiny-cpu", flags=[read_assignments("--set", given.values())])
    scale_out(composed, cluster_of("verl", 2, 1, path.name), path, source=path.name, card="h100")
    return path


def _model(path: Path, *, opens: str = "") -> Path:
    """Writes the embedded model with a template that opens the assistant's turn."""
    shutil.copytree(TINY_DIRECTORY, path)
    template = path / "chat_template.jinja"
    header = "<|im_start|>assistant\n"
    template.write_text(template.read_text("utf-8").replace(header, header + opens), "utf-8")
    return path
