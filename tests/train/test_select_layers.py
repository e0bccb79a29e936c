"""Real runs that select the layers that learn: the run of these layers, resumed and read as any other."""

import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.checkpointing.resume_config import read_composed, with_changes
from lowmem_rl.config.compose import read_assignments, resolve
from lowmem_rl.entrypoints import select_layers, train
from lowmem_rl.entrypoints.train import resume, run
from lowmem_rl.errors import NoSignal, RunDirError
from lowmem_rl.storage.run_dir import RunDir, read_json, read_rows
from lowmem_rl.telemetry.events import Event, LayersSelected, PhaseStarted
from lowmem_rl.telemetry.metrics import MEASURED

pytestmark = pytest.mark.usefixtures("preloaded")

SMALL = (
    *("eval.examples=16", "eval.every=0", "grpo.prompts_per_step=2", "grpo.steps=3", "memory.micro_batch=16"),
    *("logging.checkpoint_every=1", "trainable.select_top=1"),
)
BY_GRADIENT = ("trainable.select=grad_norm", "trainable.select_rounds=2")


def trained(out: Path, *settings: str) -> tuple[RunDir, list[Event]]:
    events: list[Event] = []
    run(resolve(preset="tiny-cpu", settings=settings), out, events.append)
    return RunDir(out), events


@pytest.fixture(scope="module")
def selected(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, list[Event]]:
    return trained(tmp_path_factory.mktemp("selected") / "run", *SMALL, *BY_GRADIENT)


def layers_of(run_dir: RunDir) -> set[str]:
    from safetensors.torch import load_file

    found = load_file(run_dir.adapter / "adapter_model.safetensors")
    return {name.split(".layers.")[1].split(".")[0] for name in found}


def scored_again(events: list[Event]) -> bool:
    return any(isinstance(event, PhaseStarted) and "select" in event.name for event in events)


def test_it_is_the_run_in_which_the_layers_are_named(selected: tuple[RunDir, list[Event]], tmp_path: Path) -> None:
    run_dir, events = selected
    row = next(read_rows(run_dir.trainable))
    scores = {int(layer): score for layer, score in row["scores"].items()}
    assert (row["step"], row["select"], row["rounds"], set(scores)) == (0, "grad_norm", 2, {0, 1, 2})
    assert row["layers"] == [max(scores, key=lambda layer: scores[layer])]
    (event,) = (event for event in events if isinstance(event, LayersSelected))
    assert event.selection.layers == tuple(row["layers"])
    assert read_json(run_dir.config)["config"]["trainable"]["layers"] == "all"  # as it was written
    named, _ = trained(tmp_path / "named", *SMALL[:-1], f"trainable.layers={row['layers'][0]}")
    for name in ("adapter/adapter_model.safetensors", "adapter/adapter_config.json", "order.jsonl", "samples.jsonl"):
        assert (run_dir.path / name).read_bytes() == (named.path / name).read_bytes(), name
    rows = [
        [{k: v for k, v in row.items() if k not in MEASURED} for row in read_rows(one.metrics)]
        for one in (run_dir, named)
    ]
    assert rows[0] == rows[1]


def test_copies_of_layers_that_are_not_selected_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeps: list[bool] = []
    load = train.load_run

    def loaded(context: Any, rewards: Any) -> Any:
        found = load(context, rewards)
        keeps.append(context.prepared.plan.keeps_copies and found.sampler.kept is not None)
        return found

    monkeypatch.setattr(train, "load_run", loaded)
    run_dir, _ = trained(tmp_path / "run", *SMALL, "trainable.select=weight_norm")
    assert keeps == [True]
    # The planner chooses again whether states are kept: before the selection layer 0 might have learned.
    row = next(read_rows(run_dir.trainable))
    assert row["layers"] > [0]
    assert row["kept_states"] == "host"
    assert read_json(run_dir.config)["config"]["memory"]["kept_states"] == "off"
    assert [row["kept_states"] for row in read_rows(run_dir.metrics)] == [1.0, 1.0, 1.0]


def test_the_model_that_was_scored_is_freed_before_the_run_loads_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[weakref.ref[Any]] = []
    remaining: list[Any] = []
    load = select_layers.load_policy

    def loaded(*args: Any) -> Any:
        policy = load(*args)
        models.append(weakref.ref(policy.model))
        return policy

    def listen(event: Event) -> None:
        if event == PhaseStarted("loading tiny"):
            remaining.extend(model() for model in models)

    monkeypatch.setattr(select_layers, "load_policy", loaded)
    run(resolve(preset="tiny-cpu", settings=[*SMALL, *BY_GRADIENT]), tmp_path / "run", listen)
    assert remaining == [None]


def test_a_resumed_run_reads_its_layers_and_scores_nothing(
    selected: tuple[RunDir, list[Event]], tmp_path: Path
) -> None:
    shutil.copytree(selected[0].path, copy := tmp_path / "run")
    run_dir, events = RunDir(copy), list[Event]()
    longer = with_changes(read_composed(run_dir), [read_assignments("--set", ["grpo.steps=4"])])
    kept = run_dir.trainable.read_bytes()
    for damaged in (b"", kept.replace(b'"layers": [', b'"layers": [9, '), kept.replace(b"grad_norm", b"fisher")):
        run_dir.trainable.write_bytes(damaged)
        with pytest.raises(RunDirError, match="trainable.jsonl") as refused:
            resume(longer, copy)
        assert refused.value.hint
    run_dir.trainable.write_bytes(kept)
    assert resume(longer, copy, events.append) is not None
    assert not scored_again(events)
    assert len(list(read_rows(run_dir.metrics))) == 4
    assert layers_of(run_dir) == layers_of(selected[0])


def test_a_run_without_a_checkpoint_resumes_with_the_layers_that_it_has_selected(
    selected: tuple[RunDir, list[Event]], tmp_path: Path
) -> None:
    """And selects them if it was interrupted before: the same ones."""
    shutil.copytree(selected[0].path, copy := tmp_path / "run")
    run_dir = RunDir(copy)
    kept = run_dir.trainable.read_bytes()
    for begun in (True, False):
        for path in (run_dir.checkpoints, run_dir.adapter):
            shutil.rmtree(path)
        for path in (run_dir.metrics, run_dir.evaluations, *(() if begun else (run_dir.trainable,))):
            path.unlink()
        events: list[Event] = []
        assert resume(read_composed(run_dir), copy, events.append) is not None
        assert scored_again(events) is not begun
        assert run_dir.trainable.read_bytes() == kept


def test_it_is_evaluated_asked_and_exported(
    selected: tuple[RunDir, list[Event]], tmp_path: Path, cli_here: Any
) -> None:
    shutil.copytree(selected[0].path, copy := tmp_path / "run")
    after = read_json(RunDir(copy).evaluations)["after"]["pass_at_1"]
    for target in (copy, copy / "best", copy / "checkpoints" / "step-000003"):
        outcome = cli_here("eval", str(target), "--examples=16", "--json")
        assert outcome.code == 0, outcome.stderr
    assert json.loads(outcome.stdout)["results"][0]["pass_at_1"] == after
    outcome = cli_here("samples", str(copy), "--prompt", "What is 123 * 4?")
    assert outcome.code == 0, outcome.stderr
    outcome = cli_here("export", str(copy), "--to", "adapter", "--examples", "8")
    assert outcome.code == 0, outcome.stderr
    layer = next(read_rows(RunDir(copy).trainable))["layers"][0]
    assert f"`{layer}, selected by grad_norm`" in (copy / "export" / "adapter" / "README.md").read_text("utf-8")
    assert "Layers selected by grad_norm" in RunDir(copy).report.read_text("utf-8")


def test_whole_layers_are_selected_and_exported(tmp_path: Path, cli_here: Any) -> None:
    settings = (
        "trainable.select=snr",
        "trainable.method=full",
        "model.bits=16",  # the files are proved token by token
        "trainable.layers=1-2",
        "trainable.schedule=gradual_freezing",
    )
    run_dir, events = trained(tmp_path / "run", *SMALL, *settings)
    first, second = list(read_rows(run_dir.trainable))
    assert (first["step"], set(first["scores"]), second) == (0, {"1", "2"}, {"step": 1, "layers": first["layers"]})
    assert any(isinstance(event, PhaseStarted) and event.name.endswith("snr: 2 of 2") for event in events)
    assert layers_of(run_dir) == {str(first["layers"][0])}
    outcome = cli_here("eval", str(run_dir.path), "--examples=16", "--json")
    assert outcome.code == 0, outcome.stderr
    outcome = cli_here("export", str(run_dir.path), "--to", "weights", "--examples", "8")
    assert outcome.code == 0, outcome.stderr
    assert read_json(run_dir.path / "export" / "weights" / "trainable.json")["layers"] == str(first["layers"][0])


def test_without_an_informative_group_nothing_is_selected_and_nothing_remains(tmp_path: Path) -> None:
    settings = [*SMALL, *BY_GRADIENT, "rewards.boxed_answer=0"]  # the embedded model always earns the format
    with pytest.raises(NoSignal, match="all groups of 2 rounds of sampling are dead") as refused:
        run(resolve(preset="tiny-cpu", settings=settings), tmp_path / "run", force=True)
    assert "trainable.select=snr" in refused.value.hint
    assert not (tmp_path / "run").exists()
