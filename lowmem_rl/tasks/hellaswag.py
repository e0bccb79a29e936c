"""HellaSwag: how does a described scene continue (arXiv 1905.07830).

A row is `ctx`, or its parts `ctx_a` and `ctx_b` with an `activity_label`, four `endings` and `label`, the right
ending's number as text. Its test split has no labels, so `validation` is held out.

`hellaswag` asks for the letter of an ending. `hellaswag_free` shows none: the answer is the right ending in
its own words, which only the perplexity reward can score.
"""

import re
from string import ascii_uppercase

from lowmem_rl.tasks.hub_task import DataSet, Problem
from lowmem_rl.tasks.loaders import HubData
from lowmem_rl.tasks.source_row import SourceRow

_BRACKETS = re.compile(r"\[[^\[\]]*\]")


def _read_choice(row: SourceRow) -> Problem:
    """Returns the question with lettered endings; the answer is a letter. Raises `TaskError` for an unusable row."""
    endings, label = _endings(row)
    choices = "\n".join(f"{letter}. {ending}" for letter, ending in zip(ascii_uppercase, endings, strict=False))
    question = f"{_scene(row)} ...\n\nWhich ending fits best? Answer with its letter.\n{choices}"
    return Problem(question, ascii_uppercase[label], extra={"choices": tuple(endings)})


def _read_free(row: SourceRow) -> Problem:
    """Returns the question without endings; the answer is the right ending. Raises `TaskError` for an unusable row."""
    endings, label = _endings(row)
    return Problem(f"How does this go on?\n\n{_scene(row)} ...", endings[label], extra={"choices": tuple(endings)})


def _endings(row: SourceRow) -> tuple[list[str], int]:
    endings = [_clean(ending) for ending in row.items("endings", str)]
    label = row.integer("label")
    if not all(endings) or not 0 <= label < len(endings) <= len(ascii_uppercase):
        what = f"label {label} names none of its {len(endings)} endings"
        raise row.unusable(what, "Rows of the test split have none.")
    return endings, label


def _scene(row: SourceRow) -> str:
    """Returns the scene after its activity, the second part capitalised (as in verl and lm-eval)."""
    if "ctx_a" not in row.values or "ctx_b" not in row.values:
        return _clean(row.text("ctx"))
    parts = [row.values.get("activity_label"), row.value("ctx_a"), str(row.value("ctx_b") or "").capitalize()]
    activity, *scene = [str(part or "").strip() for part in parts]
    if not any(scene):
        raise row.unusable("columns 'ctx_a' and 'ctx_b' are empty", "Each row needs a scene there.")
    return _clean(f"{activity}: {' '.join(scene)}" if activity else " ".join(scene))


def _clean(text: str) -> str:
    """Returns text without WikiHow's marks such as [header] and [step]; a [title] ends a sentence."""
    return " ".join(_BRACKETS.sub("", text.replace(" [title]", ". ")).split())


_DATA = HubData("Rowan/hellaswag", test="validation")

HELLASWAG = DataSet(
    name="hellaswag",
    summary="how a scene continues, by the letter of one of four endings",
    data=_DATA,
    read=_read_choice,
    sorted_by="source",
)

HELLASWAG_FREE = DataSet(
    name="hellaswag_free",
    summary="how a scene continues, in free words, for the perplexity reward",
    data=_DATA,
    read=_read_free,
    rewards=("perplexity",),
    sorted_by="source",
)
