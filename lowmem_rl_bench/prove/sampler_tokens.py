"""Our sampler against transformers' `generate` (on a card, Unsloth's): greedy answers, token by token.

Two computations of one model round differently. So `generate`'s answers are read again, whole and alone: the largest
distance of a log-probability from itself is the model's rounding, and a token of ours that is at most twice as much
less likely than the likeliest is a tie (`export.proof`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lowmem_rl.config.compose import resolve
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.device import device_on
from lowmem_rl.engine.policy import Policy, import_unsloth, load_policy, prepare_process
from lowmem_rl.evaluation.eval_set import held_out_examples
from lowmem_rl.models.hardware import this_machine
from lowmem_rl.tasks.task_registry import load_task
from lowmem_rl_bench.prove.processes import serve

WEIGHTS = ("quantized", "merged")


def compare(order: Mapping[str, Any]) -> dict[str, Any]:
    """Returns, for both kinds of weights, how many answers are the same, and how far log-probabilities are off."""
    config = resolve(preset=order["preset"], settings=order["settings"]).config
    device = device_on(this_machine(), config)
    prepare_process(config, device)
    import_unsloth()
    policy = load_policy(config, device)
    _teach(policy)
    prompts = [example.prompt for example in held_out_examples(load_task(config.task), config.task, order["prompts"])]
    asked = [policy.tokenize(prompt) for prompt in prompts]
    theirs = _generated(policy, asked, config)
    return {"items": len(asked)} | {weights: _compared(policy, weights, asked, theirs, config) for weights in WEIGHTS}


def _teach(policy: Policy) -> None:
    """Gives the adapter weights that count: at first its B is zero."""
    from lowmem_rl_bench.step.stacks import B_SPREAD, fill_adapter

    fill_adapter(policy.model, 0, B_SPREAD)


def _generated(policy: Policy, prompts: list[list[int]], config: RunConfig) -> Any:
    """Returns the answers of `generate`, and how the model reads them again."""
    from lowmem_rl.export.model_answers import ExportPrompts, answer_greedily, read_again
    from lowmem_rl.export.proof import ModelAnswers

    asked = ExportPrompts(
        prompts=prompts,
        stop_ids=sorted(policy.stop_ids),
        pad_id=policy.tokenizer.pad_token_id,
        max_tokens=config.grpo.max_completion_tokens,
        batch=config.eval.batch,
    )
    with policy.inference() as model:
        answers = list(answer_greedily(model, asked))
        read = [read_again(model, *pair) for pair in zip(prompts, answers, strict=True)]
    return ModelAnswers(prompts, answers, read)


def _compared(policy: Policy, weights: Any, prompts: list[list[int]], theirs: Any, config: RunConfig) -> dict[str, Any]:
    from lowmem_rl.engine.backend import build, logprob_gap, max_gap
    from lowmem_rl.engine.continuous_batching import StoppingCriteria, sample
    from lowmem_rl.engine.sampling import GREEDY, stream_names

    most = config.grpo.max_completion_tokens
    decoder = build(policy, weights, max(map(len, prompts)) + most)
    limits = StoppingCriteria(policy.stop_ids, most, config.eval.batch)
    with policy.without_dropout():
        ours = sample(decoder, prompts, stream_names("prove", len(prompts)), GREEDY, limits)
    gap = logprob_gap(policy, prompts, ours)
    return _departures(theirs, [row.ids for row in ours]) | {"gap_nats": gap, "most_gap_nats": max_gap(policy)}


def _departures(theirs: Any, ours: Sequence[Sequence[int]]) -> dict[str, Any]:
    from lowmem_rl.export.proof import first_mismatch

    tie_nats = 2 * max(theirs.distances)
    pairs = enumerate(zip(theirs.answers, ours, strict=True))
    found = [one for item, (answer, ids) in pairs if (one := first_mismatch(item, answer, ids)) is not None]
    ties = [one for one in found if one.behind_nats is not None and one.behind_nats <= tie_nats]
    return {
        "same": len(ours) - len(found),
        "ties": len(ties),
        "tie_nats": tie_nats,
        "differences": [f"item {one.item}, token {one.place}" for one in found if one not in ties],
    }


if __name__ == "__main__":
    serve(compare)
