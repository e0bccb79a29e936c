"""The chat template of a model by its name, if its files are on this disk."""

from lowmem_rl.chat_templates.jinja_environment import compile_template
from lowmem_rl.chat_templates.prompt_template import PromptTemplate, fit_template
from lowmem_rl.chat_templates.template_files import find_template, model_directory


def template_of_model(name: str, revision: str | None = None) -> PromptTemplate | None:
    """Returns the template of a model, None if it has none on this disk.

    Raises `TaskError` if it is broken or cannot show a question.
    """
    directory = model_directory(name, revision)
    file = find_template(directory) if directory else None
    return fit_template(name, compile_template(file)) if file else None
