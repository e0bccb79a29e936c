"""Checks a run for another trainer: its settings, rewards and data, divided over the cards there."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from lowmem_rl.chat_templates.model_template import template_of_model
from lowmem_rl.chat_templates.prompt_template import PromptTemplate
from lowmem_rl.config.compose import ResolvedConfig
from lowmem_rl.config.places import without_folder
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.device import Device, check_dtype, cpu_device, device_of
from lowmem_rl.entrypoints.preflight import check_sample, check_scoring, check_settings, load_examples
from lowmem_rl.errors import ConfigError, SetupError, TaskError
from lowmem_rl.example import Example
from lowmem_rl.grpo.prompt_order import rates_of
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.models.shape import ModelShape
from lowmem_rl.planning.budget_input import Budget, place_of
from lowmem_rl.planning.overrides import with_overrides
from lowmem_rl.planning.plan import plan
from lowmem_rl.rewards.model_reward import ModelReward
from lowmem_rl.rewards.reward import RewardSet
from lowmem_rl.scale_out import trl_keys, verl_keys
from lowmem_rl.scale_out.asked_examples import asked_examples, check_held_out
from lowmem_rl.scale_out.cluster import Cluster
from lowmem_rl.scale_out.counterparts import KeyMap, map_keys
from lowmem_rl.scale_out.division import divided
from lowmem_rl.scale_out.learned_adapter import check_learned
from lowmem_rl.scale_out.rows import Row, example_of, row_of
from lowmem_rl.tasks.select import gold_completion_of
from lowmem_rl.tasks.task import Task

TITLES = {"trl": "TRL", "verl": "verl"}
_TABLES = {
    "trl": (trl_keys.TABLE, trl_keys.DEVIATIONS),
    "verl": (verl_keys.TABLE, verl_keys.DEVIATIONS),
}
_TRIED = 20
"""Examples whose rewards are compared before and after they were rows."""


@dataclass(frozen=True, slots=True)
class PreparedScaleOut:
    """All that the files are made of."""

    keys: KeyMap
    config: RunConfig
    """With every "auto" chosen and the micro-batch divided."""
    cluster: Cluster
    device: Device
    shape: ModelShape
    template: PromptTemplate
    train: list[Row]
    test: list[Row]
    adapter: Path | None
    source: str
    notes: tuple[str, ...]
    """What the user should know of the prompts."""


def prepare(
    composed: ResolvedConfig, cluster: Cluster, accepted: Set[str], card: str | None, adapter: Path | None, source: str
) -> PreparedScaleOut:
    """Returns what the files are made of. Raises `ConfigError`, `TaskError`, `SetupError` or `RunDirError`."""
    keys = _mapped(composed.config, cluster, accepted)
    rewards, task = check_settings(keys.config)
    _check_rewards(rewards)
    place = place_of(card or composed.card)
    config, device, shape = _planned(keys.config, place, cluster)
    if adapter:
        check_learned(adapter, config, shape)
    # What becomes of 4 bit is known once "auto" has chosen.
    keys = _mapped(with_overrides(composed.config, {"model.bits": config.model.bits}), cluster, accepted)
    template = _template(config)
    rates = rates_of(config)
    drawn, test = load_examples(config, task, rates)
    train, notes = asked_examples(config, template, drawn, rates)
    check_held_out(config, template, test, cluster.to)
    check_scoring(config, rewards, task, train)
    check_sample(config, rewards, task, train, test)
    rows, test_rows = _rows(train, "train", config, template), _rows(test, "test", config, template)
    _check_round_trip(rewards, task, train, rows)
    return PreparedScaleOut(
        keys, config, cluster, device, shape, template, rows, test_rows, adapter, source, tuple(notes)
    )


def _rows(examples: Sequence[Example], split: str, config: RunConfig, template: PromptTemplate) -> list[Row]:
    name = without_folder(config.task.name)
    return [row_of(example, split, number, name, template) for number, example in enumerate(examples)]


def _mapped(config: RunConfig, cluster: Cluster, accepted: Set[str]) -> KeyMap:
    table, deviations = _TABLES[cluster.to]
    return map_keys(config, TITLES[cluster.to], table, deviations, accepted)


def _planned(config: RunConfig, place: Budget, cluster: Cluster) -> tuple[RunConfig, Device, ModelShape]:
    """Returns the run with every "auto" chosen for a card there, divided over the cards, and where it computes."""
    if cluster.to == "verl" and place.card is None:
        raise ConfigError("verl samples with vLLM, which needs cards.", hint="Name theirs: --card h100.")
    device = device_of(place.card, config) if place.card else cpu_device(config)
    check_dtype(config, device)
    shape = load_shape(config.model.name, config.model.revision)
    planned = plan(config, shape, place.card, place.budget_bytes).config
    return divided(planned, cluster, may_choose=config.memory.micro_batch == "auto"), device, shape


def _template(config: RunConfig) -> PromptTemplate:
    """Returns the model's chat template. Raises `SetupError` if it is not on this disk."""
    template = template_of_model(config.model.name, config.model.revision)
    if template is None:
        raise SetupError(
            f"The chat template of {config.model.name} is not on this disk: prompts and rewards depend on it.",
            hint=f'Fetch it with: hf download {config.model.name} --include "*.json" "*.jinja"',
        )
    return template


def _check_rewards(rewards: RewardSet) -> None:
    """Raises `ConfigError` for a reward that asks the model."""
    asking = [reward.name for reward in rewards.rewards if isinstance(reward, ModelReward)]
    if asking:
        what = f"Reward {' and '.join(asking)} asks the model that learns, which other trainers do not offer."
        raise ConfigError(what, hint=f"Leave it out: {' '.join(f'--set rewards.{name}=0' for name in asking)}.")


def _check_round_trip(rewards: RewardSet, task: Task, examples: Sequence[Example], rows: Sequence[Row]) -> None:
    """Raises `TaskError` if a reward scores a perfect completion otherwise once its example has been a row."""
    pairs = [pair for pair in zip(rewards.rewards, rewards.weights, strict=True) if pair[0].kind != "control"]
    tried = RewardSet(tuple(reward for reward, _ in pairs), tuple(weight for _, weight in pairs))
    for example, row in list(zip(examples, rows, strict=True))[:_TRIED]:
        completion = gold_completion_of(task, example)
        again = example_of(row["reward_model"]["ground_truth"], row["extra_info"])
        before, after = (tried.score(completion, each, lambda error: None).scores for each in (example, again))
        if before != after:
            what = f"Example {example.id!r:.80} earns {after} as a row of parquet, and {before} here."
            raise TaskError(what, hint="Let the task put numbers, texts, lists and dictionaries into extra.")
