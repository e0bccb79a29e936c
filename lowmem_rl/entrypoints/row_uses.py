"""What a run reads besides the rows of training: held-out prompts, and gold answers after completions."""

from lowmem_rl.engine.row_length import SequenceUse, asking, reading_answers
from lowmem_rl.entrypoints.preflight import PreparedRun
from lowmem_rl.rewards.perplexity import answer_text


def sequence_uses(inputs: PreparedRun) -> tuple[SequenceUse, ...]:
    """Returns what loading is given."""
    config = inputs.plan.config
    held_out = [example.prompt for example in inputs.test]
    asked = asking(f"the evaluation on {config.task.name}", held_out, config.grpo.max_completion_tokens)
    further = [eval_set.use for eval_set in inputs.further]
    if not any(reward.kind == "model" for reward in inputs.rewards.rewards):
        return asked, *further
    return asked, *further, reading_answers(config, [answer_text(example) for example in inputs.train])
