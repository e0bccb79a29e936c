"""The examples that a run asks, in its order: within the prompt limit, and no more than it needs."""

from collections.abc import Sequence

from lowmem_rl.chat_templates.prompt_template import PromptTemplate
from lowmem_rl.chat_templates.tokenizer_file import encoder_of_model
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.entrypoints.prompt_check import check_prompts
from lowmem_rl.errors import TaskError
from lowmem_rl.example import Example
from lowmem_rl.grpo.prompt_order import arranged
from lowmem_rl.grpo.train_dataset import check_enough
from lowmem_rl.scale_out.cluster import TargetName
from lowmem_rl.tasks.curriculum import Rates


def asked_examples(
    config: RunConfig, template: PromptTemplate, drawn: Sequence[Example], rates: Rates
) -> tuple[list[Example], list[str]]:
    """Returns those of the `drawn` examples that the run asks, as `train` does, and notes on the prompts.

    Without a tokenizer on this disk they may be too long: then the trainer leaves these out, and if it needs no order
    it has all that were drawn to choose from. Raises `TaskError` if the rest does not fill a rollout.
    """
    notes = check_prompts(config, drawn, most=len(drawn))
    usable = _within_limit(config, template, drawn)
    if usable is None:
        return (list(drawn) if config.curriculum.by == "none" else arranged(drawn, config, rates)), notes
    check_enough(usable, config, overlong=len(drawn) - len(usable))
    return arranged(usable, config, rates), notes


def check_held_out(config: RunConfig, template: PromptTemplate, test: Sequence[Example], to: TargetName) -> None:
    """Raises `TaskError` if verl, which has the prompt limit for held-out examples, too, would have none of them."""
    if to == "verl" and _within_limit(config, template, test) == []:
        limit = config.grpo.max_prompt_tokens
        what = f"Each of {len(test)} held-out prompts is longer than grpo.max_prompt_tokens={limit}."
        raise TaskError(what, hint="Raise it: verl has that limit for held-out prompts, too.")


def _within_limit(config: RunConfig, template: PromptTemplate, examples: Sequence[Example]) -> list[Example] | None:
    """Returns the examples whose prompt is within `grpo.max_prompt_tokens`, None if no tokenizer is on this disk."""
    if (encode := encoder_of_model(config.model.name, config.model.revision)) is None:
        return None
    limit = config.grpo.max_prompt_tokens
    return [example for example in examples if len(encode(template.render(example.prompt))) <= limit]
