"""A chat template with the form in which it takes conversations, found by trying it.

Templates differ in what they accept. Gemma 2's refuses a system turn and Phi-3's drops it: the instruction then goes
into the user's turn. Those of vision models read a turn's text only from a list of parts.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from lowmem_rl.errors import TaskError
from lowmem_rl.example import Message
from lowmem_rl.prompts import in_users_turn, joined_systems, prefill_of

_SYSTEM, _USER, _ASSISTANT = "Answer in plain words.", "How many legs has a heron?", "It has two of them."
_PROBE: tuple[Message, ...] = ({"role": "system", "content": _SYSTEM}, {"role": "user", "content": _USER})
_CLOSED_THOUGHTS = re.compile(r"[<\[◁](?P<tag>[^<>\[\]◁▷/|\s]+)[>\]▷]\s*[<\[◁]/(?P=tag)[>\]▷]\s*\Z")
"""An empty block at a prompt's end: `<think></think>`, or with another model's tags."""
_LONGEST_REASON = 200


class ApplyTemplate(Protocol):
    """Renders messages, as a tokenizer's `apply_chat_template(..., tokenize=False)` does. May raise anything."""

    def __call__(self, messages: Sequence[Any], *, add_generation_prompt: bool) -> str: ...


@dataclass(frozen=True, slots=True)
class TurnForm:
    """What a template accepts as turns."""

    takes_system: bool = True
    takes_text: bool = True
    """False if it reads a turn's content only as a list of parts."""

    def fit(self, prompt: Sequence[Message]) -> list[dict[str, Any]]:
        """Returns a prompt's turns in this form, with all their words."""
        turns = joined_systems(prompt) if self.takes_system else in_users_turn(prompt)
        if self.takes_text:
            return [dict(turn) for turn in turns]
        return [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """Renders prompts, the assistant's turn opened."""

    name: str
    apply: ApplyTemplate
    form: TurnForm
    prefill: str
    """The think tag that the template leaves open at the end of a prompt, with the text after it, or ""."""
    closed_thoughts: str = ""
    """The empty block of thoughts with which it ends a prompt."""
    missing_header: str = ""
    """How it begins the assistant's turns, if a prompt lacks that: it ignores add_generation_prompt."""

    def render(self, prompt: Sequence[Message]) -> str:
        """Returns the rendered prompt. Raises `TaskError` if the template refuses it."""
        return self._placed(prompt)[1]

    def fit(self, prompt: Sequence[Message]) -> list[dict[str, Any]]:
        """Returns the turns that are rendered for a prompt, for other renderers. Raises `TaskError` as `render`."""
        return self._placed(prompt)[0]

    def moves_system(self, prompt: Sequence[Message]) -> bool:
        """Returns whether a system message is in the user's turn although the template takes a system turn."""
        takes = self.form.takes_system and any(turn["role"] == "system" for turn in prompt)
        return takes and all(turn["role"] != "system" for turn in self.fit(prompt))

    def _placed(self, prompt: Sequence[Message]) -> tuple[list[dict[str, Any]], str]:
        """Returns a prompt's turns and its text. What would be changed in the system's turn is in the user's.

        SmolLM3's template, for one, takes `/think` for a switch: it removes that from `</think>`.
        """
        turns, text = self._applied(self.form, prompt)
        if self.form.takes_system and not _shows_systems(text, prompt):
            moved, moved_text = self._applied(replace(self.form, takes_system=False), prompt)
            if _shows_systems(moved_text, prompt):
                return moved, moved_text
        return turns, text

    def _applied(self, form: TurnForm, prompt: Sequence[Message]) -> tuple[list[dict[str, Any]], str]:
        turns = form.fit(prompt)
        try:
            return turns, self.apply(turns, add_generation_prompt=True)
        except Exception as error:  # a template is a program of other people's
            roles = ", ".join(message["role"] for message in prompt)
            raise TaskError(
                f"The chat template of {self.name} refuses a prompt of the turns {roles}: {in_one_line(error)}.",
                hint="Write prompts that it accepts, mostly user and assistant in turn, or edit chat_template.jinja.",
            ) from error

    def notes(self) -> Iterator[str]:
        """Yields what a user should know before training under this template."""
        name = f"the chat template of {self.name}"
        if not self.form.takes_system:
            yield f"{name} takes no system message: instructions are at the beginning of the user's turn"
        if self.closed_thoughts:
            block = f"{self.closed_thoughts!r}"
            yield f"{name} closes the thoughts already with {block}: a reward for thoughts pays a second block only"
        if self.missing_header:
            header = f"{self.missing_header!r}"
            yield f"{name} ignores add_generation_prompt: unless Unsloth adds {header}, the model has to write that"


def fit_template(name: str, apply: ApplyTemplate) -> PromptTemplate:
    """Returns the template of the model `name` with the form in which it shows system and user message.

    Raises `TaskError` if there is no such form.
    """
    failed = ""
    for form in (TurnForm(), TurnForm(False), TurnForm(True, False), TurnForm(False, False)):
        try:
            rendered = apply(form.fit(_PROBE), add_generation_prompt=True)
        except Exception as error:  # noqa: BLE001  a template is a program of other people's
            failed = failed or in_one_line(error)
            continue
        if _SYSTEM in rendered and _USER in rendered:
            closed = _CLOSED_THOUGHTS.search(rendered)
            thoughts = prefill_of(rendered), closed[0].rstrip() if closed else ""
            return PromptTemplate(name, apply, form, *thoughts, _missing_header(apply, form))
    reason = failed or "a question is not in what it renders"
    raise TaskError(
        f"The chat template of {name} cannot render a question: {reason}.",
        hint="Take the chat_template.jinja of the model's own repository, or correct the file.",
    )


def _missing_header(apply: ApplyTemplate, form: TurnForm) -> str:
    """Returns what an assistant's turn begins with and a prompt lacks, if add_generation_prompt changes nothing.

    Mistral's and Llama 2's templates ignore it rightly: their `[/INST]` is all that comes before an answer.
    """
    asked = ({"role": "user", "content": _USER},)
    answered = (*asked, {"role": "assistant", "content": _ASSISTANT})
    try:
        opened = apply(form.fit(asked), add_generation_prompt=True)
        if opened != apply(form.fit(asked), add_generation_prompt=False):
            return ""
        before, shown, _ = apply(form.fit(answered), add_generation_prompt=False).partition(_ASSISTANT)
    except Exception:  # noqa: BLE001  such a template shows prompts only: nothing is known of the assistant's turns
        return ""
    is_longer = shown and before.startswith(opened) and before.rstrip() != opened.rstrip()
    return before.removeprefix(opened)[-_LONGEST_REASON:] if is_longer else ""


def _shows_systems(text: str, prompt: Sequence[Message]) -> bool:
    return all(turn["content"].strip() in text for turn in prompt if turn["role"] == "system")


def in_one_line(error: BaseException) -> str:
    """Returns an error's text without its line breaks and final period, at most 200 characters."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text[:_LONGEST_REASON]
