"""Renders a run's prompts under the model's chat template, before the model is loaded and without transformers."""

from collections.abc import Sequence

from lowmem_rl.chat_templates.model_template import template_of_model
from lowmem_rl.chat_templates.tokenizer_file import check_embedded, encoder_of_model
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.errors import TaskError
from lowmem_rl.example import Example
from lowmem_rl.models.lookup import load_shape

_TRIED_PROMPTS = 200


def check_prompts(config: RunConfig, examples: Sequence[Example]) -> list[str]:
    """Returns what a user should know of the chat template; nothing if its file is not on this disk.

    Renders up to 200 prompts at equal distances. Raises `TaskError` if the template is broken or refuses one of them,
    `SetupError` if one has a token that the model does not embed.
    """
    name, revision = config.model.name, config.model.revision
    template = template_of_model(name, revision)
    if template is None:
        return []
    encode, embedded = encoder_of_model(name, revision), load_shape(name, revision).vocab_size
    moved = 0
    for example in (tried := examples[:: max(1, len(examples) // _TRIED_PROMPTS)]):
        try:
            rendered = template.render(example.prompt)
        except TaskError as error:
            raise TaskError(f"Example {example.id!r}: {error}", hint=error.hint) from error
        moved += template.moves_system(example.prompt)
        if encode:
            check_embedded(name, encode(rendered), embedded)
    notes = list(template.notes())
    if moved:
        where = f"in {moved} of {len(tried)} prompts: it is at the beginning of the user's turn instead"
        notes.append(f"the chat template of {name} would change the system message {where}")
    return notes
