"""`scale-out --to trl` on a CPU: what it writes really runs, as two gloo processes, and has the gradient of one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lowmem_rl.config.compose import read_assignments, resolve
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.policy import Policy, load_policy, prepare_process
from lowmem_rl.rewards.reward_registry import load_reward_set
from lowmem_rl.scale_out.cluster import cluster_of
from lowmem_rl.scale_out.rows import example_of, read_rows
from lowmem_rl.scale_out.scale_out import scale_out
from lowmem_rl.training.reward_errors import RewardErrorCounter
from lowmem_rl.trl_adapter.reward_funcs import TrlReward
from lowmem_rl_bench.step import stacks
from lowmem_rl_bench.step.arms import OURS
from tests.train.scaled_gradients import SEED, SPREAD, GivenCompletions, Gradients

ROOT = Path(__file__).parents[2]
COMMON = (
    "model.bits=16", "memory.checkpointing=none", "memory.micro_batch=4", "grpo.prompts_per_step=2", "grpo.steps=1",
    "grpo.max_completion_tokens=32", "optimizer.max_grad_norm=1e9", "eval.examples=20",
)  # fmt: skip
CASES = {
    "dapo": ("grpo.loss=dapo",),
    "grpo": ("grpo.loss=grpo",),
    "dr_grpo": ("grpo.loss=dr_grpo", "grpo.scale_rewards=none"),
    "dapo-kl": ("grpo.loss=dapo", "grpo.beta=0.04"),
    "continued": ("grpo.loss=dapo", "grpo.beta=0.04"),
    "a-group-over-both": ("grpo.prompts_per_step=1", "grpo.group_size=16", "grpo.scale_rewards=batch"),
}
REWARD = "def count(completions, **_):\n    return [sum(map(ord, text)) % 7 + len(text) % 3 for text in completions]\n"


pytestmark = pytest.mark.usefixtures("preloaded")


def launch(folder: Path, *command: str, timeout_s: float = 900) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{os.environ['PYTHONPATH']}"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]


def write(path: Path, gpus: int, reward: Path | None, *settings: str, adapter: Path | None = None) -> Path:
    given = {setting.partition("=")[0]: setting for setting in settings}
    flags = [read_assignments("--set", given.values())]
    if reward:
        weights = (f"{reward}:count=0.1", "boxed_answer=1")
        flags.append(read_assignments("--reward", weights, prefix="rewards.", replaces_rewards=True))
    composed = resolve(preset="tiny-cpu", flags=flags)
    scale_out(composed, cluster_of("trl", gpus, 1, path.name), path, source="tiny-cpu", adapter=adapter)
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Path]]:
    """The cases' folders, by the number of processes."""
    home = tmp_path_factory.mktemp("scaled")
    reward, adapter = home / "rewards.py", home / "adapter"
    reward.write_text(REWARD)
    policy = own_policy(resolve(preset="tiny-cpu", settings=[*COMMON]).config)
    stacks.fill_adapter(policy.model, SEED + 1, SPREAD)
    policy.save_adapter(adapter)

    def write_all(gpus: int) -> dict[str, Path]:
        start = {"continued": adapter}
        return {
            name: write(home / str(gpus) / name, gpus, reward, *COMMON, *case, adapter=start.get(name))
            for name, case in CASES.items()
        }

    return {gpus: write_all(gpus) for gpus in (1, 2)}


def own_policy(config: RunConfig) -> Policy:
    device = Device("cpu", "float32")
    prepare_process(config, device)
    return load_policy(config, device)


@pytest.fixture(scope="module")
def gradients(folders: dict[int, dict[str, Path]]) -> dict[int, dict[str, dict[str, torch.Tensor]]]:
    """What the optimizer sees in the first step of each case, by the number of processes."""
    found = {}
    for gpus, cases in folders.items():
        home = next(iter(cases.values())).parent
        config = str(next(iter(cases.values())) / "accelerate.yaml")
        command = ("accelerate", "launch", "--config_file", config, "-m", "tests.train.scaled_gradients", str(home))
        launch(home, *command, *map(str, cases.values()))
        found[gpus] = {name: torch.load(home / f"{name}.pt", weights_only=True) for name in cases}
    return found


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Returns the norm of the difference of two gradients, over the norm of the second."""
    assert one.keys() == other.keys()
    flat, expected = (torch.cat([found[name].double().flatten() for name in sorted(found)]) for found in (one, other))
    assert float(expected.norm()) > 0
    return float((flat - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", CASES)
def test_two_processes_have_the_gradient_of_one(gradients, name: str) -> None:
    assert difference(gradients[2][name], gradients[1][name]) < 1e-6


def test_an_adapter_to_continue_with_is_the_reference_of_its_kl(gradients) -> None:
    assert difference(gradients[2]["continued"], gradients[2]["dapo-kl"]) > 1e-3


@pytest.mark.parametrize("name", ["dapo", "grpo", "dr_grpo", "dapo-kl"])
def test_it_is_the_gradient_of_our_own_trainer(gradients, folders, name: str, tmp_path: Path) -> None:
    folder = folders[1][name]
    facts = json.loads((folder / "scale_out.json").read_text())
    own = own_gradient(RunConfig.model_validate(facts["config"]), folder, tmp_path)
    assert difference(gradients[2][name], own) < 1e-6


def own_gradient(config: RunConfig, folder: Path, out: Path) -> dict[str, torch.Tensor]:
    """Returns the gradient that `lowmem-rl train` has on the same completions."""
    policy = own_policy(config)
    stacks.fill_adapter(policy.model, SEED, SPREAD)
    rows = read_rows(folder / "data" / "train.parquet")[: config.grpo.prompts_per_step]
    found = [example_of(row["reward_model"]["ground_truth"], row["extra_info"]) for row in rows]
    examples = {example.id: example for example in found}
    errors = RewardErrorCounter(0.0, print)
    scored: list[Any] = [
        TrlReward(reward, examples, policy.complete, errors) for reward in load_reward_set(config.rewards).rewards
    ]
    gradients = Gradients()
    spec = stacks.TrainerSpec(config, examples, scored, [gradients], out, (GivenCompletions,))
    stacks.build(OURS, policy, None, spec).train()
    return gradients.found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ten steps over 4-bit weights that run.sh has started, in a folder with a hostile name."""
    path = tmp_path_factory.mktemp("trained") / "it's $(touch owned) `id` a b"
    write(
        path,
        2,
        None,
        "grpo.steps=10",
        "optimizer.learning_rate=1e-3",
        "optimizer.schedule=constant",
        "eval.examples=20",
    )
    launch(path.parent, "bash", str(path / "run.sh"))
    return path


@pytest.mark.long
def test_a_run_of_two_processes_learns(trained: Path) -> None:
    state = json.loads((trained / "out" / "trainer_state.json").read_text())
    rewards = [row["reward"] for row in state["log_history"] if "reward" in row]
    assert len(rewards) == 10
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.05
    assert not list(trained.parent.rglob("owned"))


@pytest.mark.long
def test_started_again_it_continues_after_the_newest_checkpoint(trained: Path) -> None:
    before = json.loads((trained / "out" / "trainer_state.json").read_text())["log_history"]
    settings = json.loads((trained / "trl.json").read_text())
    settings["grpo_config"]["max_steps"] = 12
    (trained / "trl.json").write_text(json.dumps(settings))
    launch(trained.parent, "bash", str(trained / "run.sh"))
    after = json.loads((trained / "out" / "trainer_state.json").read_text())["log_history"]
    assert [row for row in before if "reward" in row] == [row for row in after if "reward" in row][:10]
    assert [row["step"] for row in after if "reward" in row] == [*range(1, 13)]


@pytest.mark.long
def test_its_adapter_is_evaluated_as_any_other(trained: Path, cli) -> None:
    code, out, err = cli("eval", str(trained / "out" / "adapter"), "--task", "arithmetic", "--examples", "8", "--json")
    assert code == 0, err
    assert json.loads(out)
