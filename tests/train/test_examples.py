"""The examples run unchanged."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("custom_reward.py", "1.00  <think>"),
        ("trl_rewards.py", "correctness_reward_func    2.000"),
        ("custom_task.py", "Which is larger"),
    ],
)
def test_an_example_shows_itself(name, expected) -> None:
    run = subprocess.run([sys.executable, EXAMPLES / name], capture_output=True, text=True, timeout=60, check=True)
    assert expected in run.stdout


def test_the_example_task_passes_all_that_train_checks_first() -> None:
    from lowmem_rl.config.compose import resolve
    from lowmem_rl.entrypoints.preflight import prepare

    settings = [f"task.name={EXAMPLES / 'custom_task.py'}:Larger", "task.levels=[]"]
    inputs = prepare(resolve(preset="tiny-cpu", settings=settings))
    assert (len(inputs.train), len(inputs.test)) == (640, 500)


def test_the_notebook_runs_with_the_embedded_model(preloaded, tmp_path, monkeypatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PATH", os.pathsep.join([str(preloaded.parent), os.environ["PATH"]]))
    monkeypatch.setenv("LOWMEM_PRESET", "tiny-cpu")
    monkeypatch.setenv("LOWMEM_STEPS", "2")
    monkeypatch.setenv("LOWMEM_PROBES", "2")
    shown = list[str]()

    def executed() -> str:
        notebook = nbformat.read(EXAMPLES / "colab_quickstart.ipynb", as_version=4)
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
        outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
        shown.extend(out["data"].get("text/html", "") for out in outputs if "data" in out)
        return "".join(out.get("text", "") for out in outputs)

    printed = executed()
    assert json.loads((tmp_path / "runs/quickstart/eval.json").read_text())["after"]["num_examples"] == 500
    assert (tmp_path / "adapter.zip").stat().st_size > 10_000
    assert "intervals do not overlap" in printed
    assert "pass rate" in printed.lower()
    assert any("<iframe srcdoc=" in html for html in shown)
    assert "error:" not in printed
    metrics = tmp_path / "runs/quickstart/metrics.jsonl"
    before = metrics.read_bytes()
    again = executed()
    assert "is finished" in again
    assert "error:" not in again
    assert metrics.read_bytes() == before


def test_the_notebook_carries_no_output() -> None:
    notebook = json.loads((EXAMPLES / "colab_quickstart.ipynb").read_text())
    assert all(not cell.get("outputs") for cell in notebook["cells"])
