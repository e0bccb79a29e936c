"""Renders a run's prompts under the model's chat template, before the model is loaded and without transformers."""

from collections.abc import Iterator, Sequence

from lowmem_rl.chat_templates.model_template import template_of_model
from lowmem_rl.chat_templates.prompt_template import PromptTemplate
from lowmem_rl.chat_templates.tokenizer_file import check_embedded, encoder_of_model
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.errors import TaskError
from lowmem_rl.example import Example
from lowmem_rl.models.lookup import load_shape

_TRIED_PROMPTS = 200


def check_prompts(config: RunConfig, examples: Sequence[Example], most: int = _TRIED_PROMPTS) -> list[str]:
    """Returns what a user should know of the prompts; nothing if the chat template is not on this disk.

    Renders about `most` prompts at equal distances. Raises `TaskError` if the template is broken or refuses one of
    them, or if all are too long, `SetupError` if one has a token that the model does not embed.
    """
    template = template_of_model(config.model.name, config.model.revision)
    if template is None:
        return []
    tried = examples[:: max(1, len(examples) // most)]
    texts = [_render(template, example) for example in tried]
    return [*template.notes(), *_note_moved(template, tried), *_note_overlong(config, texts)]


def _render(template: PromptTemplate, example: Example) -> str:
    try:
        return template.render(example.prompt)
    except TaskError as error:
        raise TaskError(f"Example {example.id!r}: {error}", hint=error.hint) from error


def _note_moved(template: PromptTemplate, tried: Sequence[Example]) -> Iterator[str]:
    if moved := sum(template.moves_system(example.prompt) for example in tried):
        where = f"in {moved} of {len(tried)} prompts: it is at the beginning of the user's turn instead"
        yield f"the chat template of {template.name} would change the system message {where}"


def _note_overlong(config: RunConfig, texts: Sequence[str]) -> Iterator[str]:
    """Yields a note on prompts that training leaves out. Raises `TaskError` if it leaves out all, `SetupError`."""
    name, revision, limit = config.model.name, config.model.revision, config.grpo.max_prompt_tokens
    if (encode := encoder_of_model(name, revision)) is None:
        return
    embedded, lengths = load_shape(name, revision).vocab_size, []
    for text in texts:
        ids = encode(text)
        check_embedded(name, ids, embedded)
        lengths.append(len(ids))
    over = sum(length > limit for length in lengths)
    if over and over == len(lengths):
        raise TaskError(
            f"Each of {over} prompts is longer than grpo.max_prompt_tokens={limit}; the shortest has {min(lengths)}.",
            hint=f"grpo.max_prompt_tokens={max(lengths)} takes all of them.",
        )
    if over:
        longest = f"the longest has {max(lengths)}"
        yield f"{over} of {len(texts)} prompts are longer than grpo.max_prompt_tokens={limit} and left out; {longest}"
