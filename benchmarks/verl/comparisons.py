"""What verl answered next to what we and TRL expect."""

from typing import Any

import torch

from benchmarks.verl.answers import LOSSES, PREFILLS, Asked
from benchmarks.verl.trl_loss import advantages_of, trl_gradient
from lowmem_rl.chat_templates.model_template import template_of_model
from lowmem_rl.rewards.reward import Scored
from lowmem_rl.rewards.reward_registry import load_reward_set

REWARDS = {"boxed_answer": 1.0, "think_format": 0.2}
"""Those of the preset."""


def own_scores(asked: Asked, name: str) -> list[Scored]:
    """Returns our scores of the completions that verl's reward manager was given."""
    rewards, examples = load_reward_set(REWARDS), asked.examples(name)
    _, _, pairs = asked.request[f"rewards/{name}"]
    return [rewards.score(PREFILLS[name] + text, examples[number]) for number, text in pairs]


def equal_scores(asked: Asked, name: str) -> int:
    """Returns how many of verl's rewards, with all their parts, are exactly ours."""
    return sum(
        answer["reward_score"] == one.reward
        and all(answer["reward_extra_info"][f"scores/{key}"] == score for key, score in one.scores.items())
        for answer, one in zip(asked.answers[f"rewards/{name}"], own_scores(asked, name), strict=True)
    )


def own_prompts(asked: Asked, name: str) -> list[list[int]]:
    """Returns our token ids of the prompts that verl's data set reads."""
    from transformers import AutoTokenizer

    model = asked.answers[f"config/{name}"]["values"]["actor_rollout_ref.model.path"]
    template, tokenizer = template_of_model(model), AutoTokenizer.from_pretrained(model)
    assert template is not None
    assert template.prefill == PREFILLS[name]
    texts = [template.render(example.prompt) for example in asked.examples(name)]
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return ids


def gradient_error(asked: Asked, batch: dict[str, Any], name: str, processes: int) -> float:
    """Returns the largest difference of verl's gradient from TRL's, over TRL's largest number."""
    loss = name.removesuffix("-kl")
    expected = trl_gradient(batch, loss, 0.04 if name.endswith("-kl") else 0.0, max_tokens=64)
    found = torch.tensor(asked.answers[f"loss/{name}/{processes}"], dtype=torch.float64)
    return float((found - expected).abs().max() / expected.abs().max())


def advantage_error(asked: Asked, batch: dict[str, Any], name: str) -> float:
    """Returns the largest difference of verl's advantages from TRL's."""
    scaled = "grpo.scale_rewards=none" not in LOSSES[name]
    expected = advantages_of(torch.tensor(batch["rewards"], dtype=torch.float64), scaled=scaled)
    return float((torch.tensor(asked.answers[f"advantages/{name}"], dtype=torch.float64) - expected).abs().max())
