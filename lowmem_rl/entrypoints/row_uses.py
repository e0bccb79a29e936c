"""The rows that a run needs in addition to training: held-out prompts, and gold answers after completions."""

from lowmem_rl.engine.row_length import SequenceUse, asking, reading_answers
from lowmem_rl.entrypoints.preflight import PreparedRun
from lowmem_rl.rewards.perplexity import answer_text


def sequence_uses(prepared: PreparedRun) -> tuple[SequenceUse, ...]:
    """Returns the uses that loading the model gets."""
    config, held_out = prepared.plan.config, [example.prompt for example in prepared.test]
    uses = [asking(f"the evaluation on {config.task.name}", held_out, config.grpo.max_completion_tokens)]
    uses += [eval_set.use for eval_set in prepared.further]
    if any(reward.kind == "model" for reward in prepared.rewards.rewards):
        uses.append(reading_answers(config, [answer_text(example) for example in prepared.train]))
    return tuple(uses)
