"""The gradients of a LoRA probe against those of the weights themselves, on the same completions."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.config.compose import resolve
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.policy import Policy, load_policy
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.planning.search import resolve_auto
from lowmem_rl.trainable.scores import Matrix, highest, norms_by_layer
from lowmem_rl.trainable.selection import PROBE_RANK, probe_config

SETTINGS = (
    "trainable.select=grad_norm",
    "trainable.select_top=1",
    "trainable.select_rounds=2",
    "memory.micro_batch=16",
)


@dataclass(frozen=True)
class Probed:
    """What the probe found, and the rollouts that it looked at."""

    policy: Policy
    gradients: Any
    rollouts: list[Any]
    before: dict[str, Any]


@pytest.fixture(scope="module", params=[4, 16])
def probed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Probed:
    """Two rounds of the tiny run."""
    import torch

    written = resolve(preset="tiny-cpu", settings=[*SETTINGS, f"model.bits={request.param}"]).config
    run = resolve_auto(written, load_shape("tiny"), 2**33, None)
    config = probe_config(run).model_copy(update={"memory": run.memory.model_copy(update={"checkpointing": "none"})})
    policy = load_policy(config, Device("cpu", "float32"))
    before = {name: weight.detach().clone() for name, weight in policy.model.named_parameters()}
    found = Probed(policy, *_looked_at(policy, config, tmp_path_factory.mktemp("probed")), before)
    assert all(torch.equal(before[name], weight) for name, weight in policy.model.named_parameters())
    return found


def _looked_at(policy: Policy, config: Any, out: Path) -> tuple[Any, list[Any]]:
    from lowmem_rl.engine.layer_probe import GradientSums, probed_matrices
    from lowmem_rl.engine.sampler import Sampler
    from lowmem_rl.grpo.train_dataset import to_dataset, tokens_of
    from lowmem_rl.rewards.reward_registry import load_reward_set
    from lowmem_rl.tasks.select import draw_examples
    from lowmem_rl.tasks.task import Selection
    from lowmem_rl.tasks.task_registry import load_task
    from lowmem_rl.training.reward_errors import RewardErrorCounter
    from lowmem_rl.trl_adapter.probing import probing
    from lowmem_rl.trl_adapter.reward_funcs import TrlReward
    from lowmem_rl.trl_adapter.trainer import TrainerSetup, make_trainer

    rollouts: list[Any] = []

    class Noting:
        def split_rollout(self, rollout: Any, sampled_after: int) -> Any:
            rollouts.append(rollout)
            return super().split_rollout(rollout, sampled_after)  # type: ignore[misc]

    examples = draw_examples(load_task(config.task), Selection("train", None, config.task.levels, 0), 16)
    by_id = {example.id: example for example in examples}
    errors = RewardErrorCounter(0.0, lambda text: None)
    sums = GradientSums(tuple(probed_matrices(policy.model)))
    setup = TrainerSetup(
        config=config,
        sampler=Sampler(policy, config),
        dataset=to_dataset(list(examples)),
        reward_functions=[
            TrlReward(r, by_id, policy.complete, errors) for r in load_reward_set(config.rewards).rewards
        ],
        prompt_tokens=tokens_of(policy, by_id),
        out=out,
    )
    make_trainer(policy, setup, (probing(sums), Noting)).train()
    return sums, rollouts


@pytest.fixture(scope="module")
def true(probed: Probed) -> list[dict[Matrix, Any]]:
    """The gradient of each matrix of a plain float32 model, in which all weights learn, prompt by prompt."""
    from transformers import AutoModelForCausalLM

    from lowmem_rl.engine.weight_scores import frozen_matrices
    from lowmem_rl.models.lookup import TINY_DIRECTORY

    model = AutoModelForCausalLM.from_pretrained(TINY_DIRECTORY, dtype="float32")
    own = {_key(name): weight for name, weight in model.named_parameters() if _key(name)[1].endswith("_proj")}
    for key, weight in frozen_matrices(probed.policy.model):
        own[key].data = weight.float()
    return list(_gradients(model, own, probed.rollouts))


def _key(name: str) -> Matrix:
    parts = name.removesuffix(".weight").split(".")
    return int(parts[2]) if "layers" in parts and name.endswith(".weight") else -1, parts[-1]


def _gradients(model: Any, own: dict[Matrix, Any], rollouts: list[Any]) -> Iterator[dict[Matrix, Any]]:
    """L = -1/N sum_i A_i sum_t log pi(o_it), N the completion tokens of the rollout (dapo, at pi_old = pi)."""
    import torch

    for rollout in rollouts:
        for start in range(0, len(rollout["advantages"]), 8):
            rows = slice(start, start + 8)
            ids = torch.cat((rollout["prompt_ids"][rows], rollout["completion_ids"][rows]), 1)
            mask = torch.cat((rollout["prompt_mask"][rows], rollout["completion_mask"][rows]), 1)
            kept = rollout["completion_ids"].shape[1]
            positions = (mask.cumsum(1) - 1).clamp_min(0)
            logits = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, -kept - 1 : -1]
            log_probs = logits.log_softmax(-1).gather(2, ids[:, -kept:, None])[..., 0]
            by_row = (log_probs * rollout["completion_mask"][rows]).sum(1)
            loss = -(rollout["advantages"][rows] * by_row).sum() / rollout["num_items_in_batch"]
            yield dict(zip(own, torch.autograd.grad(loss, list(own.values())), strict=True))


def test_the_mean_gradients_are_those_of_the_weights(probed: Probed, true: list[dict[Matrix, Any]]) -> None:
    """Of a matrix with a relative standard error of at most sqrt(1 / 2r) = 0.18; of a layer as its matrices have it."""
    rounds = probed.gradients.rounds
    assert (rounds, probed.gradients.skipped) == (2, [])
    squared = {key: float((sum(one[key] for one in true) / rounds).square().sum()) for key in true[0]}
    found = probed.gradients.squared_mean()
    assert found.keys() == squared.keys()
    error = sqrt(1 / (2 * PROBE_RANK))
    ratios = [sqrt(found[key] / squared[key]) for key in squared]
    assert len(ratios) == 21
    assert all(abs(ratio - 1) < 4 * error for ratio in ratios)
    assert abs(sum(ratios) / 21 - 1) < 3 * error / sqrt(21)
    expected, scores = norms_by_layer(squared), norms_by_layer(found)
    check_layers(scores, expected, squared)
    # The two highest differ by 9 %, less than the error; the third has two thirds of them.
    assert highest(scores, 2) == highest(expected, 2)


def check_layers(found: dict[int, float], expected: dict[int, float], squared: dict[Matrix, float]) -> None:
    """Within three standard errors: those of matrices are independent, each counts by its share of the square."""
    for layer, norm in expected.items():
        shares = [value / norm**2 for (of, _), value in squared.items() if of == layer]
        error = sqrt(1 / (2 * PROBE_RANK)) * sqrt(sum(share**2 for share in shares))
        assert abs(found[layer] / norm - 1) < 3 * error


def test_the_squares_are_those_of_single_prompts(probed: Probed, true: list[dict[Matrix, Any]]) -> None:
    squared = {key: sum(float(one[key].square().sum()) for one in true) for key in true[0]}
    expected, found = norms_by_layer(squared), norms_by_layer(probed.gradients.summed_squares())
    check_layers(found, expected, squared)


def test_an_adapter_that_has_learned_is_refused(probed: Probed) -> None:
    import torch

    from lowmem_rl.engine.layer_probe import probed_matrices

    weight = next(w for name, w in probed.policy.model.named_parameters() if "lora_B" in name)
    with torch.no_grad():
        weight += 1
    with pytest.raises(ValueError, match="has learned"):
        list(probed_matrices(probed.policy.model))
    with torch.no_grad():
        weight -= 1


def test_a_round_that_is_begun_again_counts_once() -> None:
    """After an out-of-memory error in the middle of it."""
    import torch

    from lowmem_rl.engine.layer_probe import GradientSums, ProbedMatrix

    weight = torch.nn.Parameter(torch.zeros(2, 2))
    sums = GradientSums((ProbedMatrix((0, "q_proj"), weight, 2.0),))
    for gradients in ((5.0,), (1.0, 2.0)):
        sums.begin_round()
        for value in gradients:
            weight.grad += 8 * value  # of a loss times 8
            sums.add_prompt(8.0)
    sums.end_round()
    sums.begin_round()
    sums.end_round()
    assert (sums.rounds, sums.skipped) == (1, [2])
    assert sums.squared_mean() == {(0, "q_proj"): 2.0 * 4 * 3.0**2}
    assert sums.summed_squares() == {(0, "q_proj"): 2.0 * 4 * (1 + 4)}
    sums.begin_round()
    weight.grad += float("inf")
    sums.add_prompt()
    assert not sums.is_finite


def test_the_singular_values_and_the_cache(probed: Probed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch

    from lowmem_rl.engine.weight_scores import frozen_matrices, signal_to_noise_ratios, singular_values
    from lowmem_rl.storage.run_dir import read_json, write_json

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    wide = (
        torch.linalg.qr(torch.randn(7, 7))[0] @ torch.diag(torch.arange(7.0)) @ torch.linalg.qr(torch.randn(9, 7))[0].T
    )
    assert singular_values(wide) == pytest.approx([0, 1, 2, 3, 4, 5, 6], abs=1e-3)
    layers: list[int] = []
    found = signal_to_noise_ratios(probed.policy.model, layers.append)
    assert layers == [0, 1, 2]
    for key, weight in frozen_matrices(probed.policy.model):
        assert singular_values(weight) == pytest.approx(sorted(torch.linalg.svdvals(weight).tolist()), abs=1e-4)
        assert found[key] > 0
    cache = tmp_path / "lowmem-rl" / "signal_to_noise.json"
    write_json(cache, dict.fromkeys(read_json(cache), 7.0))
    assert set(signal_to_noise_ratios(probed.policy.model, layers.append).values()) == {7.0}  # it was read
    cache.write_text("[damaged", "utf-8")
    assert signal_to_noise_ratios(probed.policy.model, layers.append) == found
