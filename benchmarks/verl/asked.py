"""Runs in verl's environment: asks verl itself what it makes of folders that `scale-out --to verl` has written.

`python -m benchmarks.verl.asked REQUEST.json ANSWER.json`, with the repository on PYTHONPATH; `answers.py`
asks.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

TYPOS = (
    "actor_rollout_ref.actor.optim.learning_rate=1",
    "actor_rollout_ref.actor.loss_agg_mod='token-mean'",
    "custom_reward_functon.path=x",
)
WRONG = ("actor_rollout_ref.actor.loss_agg_mode=token-men", "actor_rollout_ref.actor.optim.lr_scheduler_type=linear")
DATACLASSES = ("actor", "rollout", "model", "actor.optim")
"""The nodes `reward` and `actor_rollout_ref.ref` are dataclasses in name only: 0.9.1 cannot make them by itself."""


def compose(overrides: list[str]) -> Any:
    """Returns verl's configuration under overrides, as its command line makes it."""
    import hydra
    import verl

    folder = Path(verl.__file__).parent / "trainer" / "config"
    with hydra.initialize_config_dir(config_dir=str(folder), version_base=None):
        return hydra.compose("ppo_trainer", overrides=overrides)


def config_answer(folder: Path) -> dict[str, Any]:
    """Returns the configuration of a folder as verl reads it, and what verl's own checks say."""
    from omegaconf import OmegaConf
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    from lowmem_rl.scale_out.start_verl import arguments_of

    arguments = arguments_of(folder)
    config = compose(arguments)
    nodes = [config.algorithm, *(OmegaConf.select(config.actor_rollout_ref, name) for name in DATACLASSES)]
    made = [type(omega_conf_to_dataclass(node)).__name__ for node in nodes]
    # With an adapter for vLLM it asks vLLM's version, which is not here.
    merged = OmegaConf.merge(config, {"actor_rollout_ref": {"model": {"lora": {"merge": True}}}})
    validate_config(merged, use_reference_policy=config.actor_rollout_ref.actor.use_kl_loss, use_critic=False)
    keys = [argument.partition("=")[0] for argument in arguments]
    found = OmegaConf.to_container(config, resolve=True)
    return {"dataclasses": made, "values": {key: _at(found, key) for key in keys}}


def _at(found: Any, key: str) -> Any:
    for part in key.split("."):
        found = found[part]
    return found


def refusals(folder: Path) -> dict[str, list[str]]:
    """Returns the misspelt keys that Hydra refuses, and the wrong values that verl's dataclasses refuse."""
    from hydra.errors import ConfigCompositionException
    from verl.utils.config import omega_conf_to_dataclass

    from lowmem_rl.scale_out.start_verl import arguments_of

    refused: dict[str, list[str]] = {"keys": [], "values": []}
    for typo in TYPOS:
        try:
            compose(arguments_of(folder, [typo]))
        except ConfigCompositionException:
            refused["keys"].append(typo)
    for wrong in WRONG:
        try:
            omega_conf_to_dataclass(compose(arguments_of(folder, [wrong])).actor_rollout_ref.actor)
        except Exception:  # noqa: BLE001  hydra wraps whatever a dataclass raises
            refused["values"].append(wrong)
    return refused


def reward_answers(folder: Path, completions: list[list[Any]]) -> list[dict[str, Any]]:
    """Returns what verl's reward manager makes of [row, completion] pairs, sampled on the rows of a folder."""
    import numpy as np
    import torch
    from transformers import AutoTokenizer
    from verl import DataProto
    from verl.trainer.ppo.reward import load_reward_manager

    from lowmem_rl.scale_out.rows import read_rows
    from lowmem_rl.scale_out.start_verl import arguments_of

    config = compose(arguments_of(folder))
    tokenizer = AutoTokenizer.from_pretrained(config.actor_rollout_ref.model.path)
    rows = read_rows(folder / "data" / "train.parquet")

    def sampled(number: int, text: str) -> Any:
        row, width = rows[number], 256
        ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        padding = [tokenizer.pad_token_id] * (width - len(ids))
        mask = torch.tensor([[1] * (4 + len(ids)) + [0] * len(padding)])
        tensors = {"prompts": torch.zeros(1, 4).long(), "responses": torch.tensor([ids + padding])}
        columns = {name: np.array([row[name]], dtype=object) for name in ("data_source", "reward_model", "extra_info")}
        return DataProto.from_dict(tensors=tensors | {"attention_mask": mask}, non_tensors=columns)

    async def score_all() -> list[dict[str, Any]]:
        manager = load_reward_manager(config, tokenizer)
        return list(await asyncio.gather(*(manager.run_single(sampled(*each)) for each in completions)))

    return asyncio.run(score_all())


def prompt_answers(folder: Path) -> list[list[int]]:
    """Returns the prompts' token ids of verl's data set."""
    from transformers import AutoTokenizer
    from verl.utils.dataset.rl_dataset import RLHFDataset

    from lowmem_rl.scale_out.start_verl import arguments_of

    config = compose(arguments_of(folder))
    tokenizer = AutoTokenizer.from_pretrained(config.actor_rollout_ref.model.path)
    data = RLHFDataset(data_files=[config.data.train_files], tokenizer=tokenizer, config=config.data)
    prompts = (data[number]["raw_prompt"] for number in range(len(data)))
    return [
        list(tokenizer.apply_chat_template(list(prompt), add_generation_prompt=True, tokenize=True, return_dict=False))
        for prompt in prompts
    ]


def loss_answer(folder: Path, batch: dict[str, Any], processes: int) -> list[list[float]]:
    """Returns the gradient of verl's loss by the log-probabilities, as `processes` cards would add it up."""
    import torch
    from verl.trainer.ppo.core_algos import agg_loss, compute_policy_loss_vanilla, kl_penalty
    from verl.utils.config import omega_conf_to_dataclass

    from lowmem_rl.scale_out.start_verl import arguments_of

    actor = omega_conf_to_dataclass(compose(arguments_of(folder)).actor_rollout_ref.actor)
    names = ("log_probs", "old", "ref", "advantages", "mask")
    new, old, ref, advantages, mask = (torch.tensor(batch[name], dtype=torch.float64) for name in names)
    new.requires_grad_(True)
    of_all = {
        "dp_size": processes,
        "batch_num_tokens": mask.sum(),
        "global_batch_size": len(mask),
        "loss_scale_factor": actor.loss_scale_factor,
    }
    total = torch.zeros((), dtype=torch.float64)
    for rows in torch.arange(len(mask)).chunk(processes):
        actor.global_batch_info.update(of_all)
        wide = advantages[rows, None].expand_as(mask[rows])
        mode = actor.loss_agg_mode
        loss = compute_policy_loss_vanilla(old[rows], new[rows], wide, mask[rows], loss_agg_mode=mode, config=actor)[0]
        if actor.use_kl_loss:
            penalty = kl_penalty(new[rows], ref[rows], actor.kl_loss_type)
            loss = loss + actor.kl_loss_coef * agg_loss(penalty, mask[rows], mode, **of_all)
        total = total + loss / processes  # FSDP averages gradients
    (gradient,) = torch.autograd.grad(total, new)
    return list(gradient.tolist())


def advantage_answer(folder: Path, rewards: list[list[float]]) -> list[list[float]]:
    """Returns verl's advantages of groups of rewards."""
    import numpy as np
    import torch
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

    from lowmem_rl.scale_out.start_verl import arguments_of

    scaled = compose(arguments_of(folder)).algorithm.norm_adv_by_std_in_grpo
    scores = torch.tensor(rewards, dtype=torch.float64).flatten()[:, None]
    groups = np.repeat(np.arange(len(rewards)), len(rewards[0]))
    found, _ = compute_grpo_outcome_advantage(scores, torch.ones_like(scores), groups, norm_adv_by_std_in_grpo=scaled)
    return list(found.view(len(rewards), -1).tolist())


JOBS = {
    "config": config_answer,
    "refusals": refusals,
    "rewards": reward_answers,
    "prompts": prompt_answers,
    "loss": loss_answer,
    "advantages": advantage_answer,
}


def main(request: Path, answer: Path) -> None:
    """Answers all jobs of a request, by their names."""
    import transformers
    import verl

    jobs = json.loads(request.read_text("utf-8"))
    found: dict[str, Any] = {"versions": {"verl": verl.__version__, "transformers": transformers.__version__}}
    for name, (job, folder, *arguments) in jobs.items():
        found[name] = JOBS[job](Path(folder), *arguments)
    answer.write_text(json.dumps(found), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
