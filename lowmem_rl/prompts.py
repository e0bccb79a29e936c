"""Prompt conventions, the place of instructions in a conversation, and the start of the assistant's turn.

A convention is a system prompt that asks for exactly what the rewards pay; `perfect_completion` answers in that form.
Some chat templates open the assistant's turn with `<think>`, so the sampled completion lacks the tag. `prefill_of`
returns that opening, and all scoring code puts it back.
"""

from collections.abc import Sequence

from lowmem_rl.errors import UnknownName
from lowmem_rl.example import Message

THINK_OPEN = "<think>"

CONVENTIONS = {
    "bare": "",
    # qwen25-math-cot (Qwen2.5-Math, evaluation/utils.py), word for word.
    "boxed": "Please reason step by step, and put your final answer within \\boxed{}.",
    # The two steps of R1-Zero with the box in place of <answer> tags.
    "think_boxed": (
        "First think about the problem within <think> </think> tags, step by step. "
        "Then, after </think>, put your final answer within \\boxed{}."
    ),
    # R1-Zero (arXiv 2501.12948, table 1), word for word; its "User:" and "Assistant:" come from the chat template.
    "r1_zero": (
        "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. "
        "The assistant first thinks about the reasoning process in the mind and then provides the user with the "
        "answer. The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, "
        "respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>."
    ),
    # TinyZero's request for a countdown, word for word; there it follows the numbers in the user's turn.
    "countdown": (
        "Show your work in <think> </think> tags. And return the final answer in <answer> </answer> tags, "
        "for example <answer> (1 + 2) / 3 </answer>."
    ),
    # verl's GSM8K, word for word; there it follows the question in the user's turn.
    "hashes": 'Let\'s think step by step and output the final answer after "####".',
}

ANSWER_TAGS = ("r1_zero", "countdown")
"""Conventions that ask for `<answer>` tags."""


def conversation(question: str, convention: str) -> tuple[Message, ...]:
    """Returns the turns that ask `question` under a convention. Raises `UnknownName` if it is not in `CONVENTIONS`."""
    return instructed([{"role": "user", "content": question}], convention)


def instructed(turns: Sequence[Message], convention: str) -> tuple[Message, ...]:
    """Returns turns under a convention: its instruction follows a system message of their own, in the same turn.

    Raises `UnknownName` if the convention is not in `CONVENTIONS`.
    """
    if convention not in CONVENTIONS:
        raise UnknownName("prompt convention", convention, CONVENTIONS)
    own = next((n for n, turn in enumerate(turns) if turn["role"] != "system"), len(turns))
    asked: Message = {"role": "system", "content": CONVENTIONS[convention]}
    return tuple(joined_systems([*turns[:own], *([asked] if asked["content"] else []), *turns[own:]]))


def joined_systems(turns: Sequence[Message]) -> list[Message]:
    """Returns turns with system messages that follow each other in one: of several, many templates show one."""
    joined: list[Message] = []
    for turn in turns:
        if joined and turn["role"] == joined[-1]["role"] == "system":
            joined[-1] = {**turn, "content": f"{joined[-1]['content']}\n\n{turn['content']}"}
        else:
            joined.append(turn)
    return joined


def in_users_turn(turns: Sequence[Message]) -> list[Message]:
    """Returns turns without system messages: each is at the beginning of the user's turn that follows it."""
    placed: list[Message] = []
    waiting: list[str] = []
    for turn in turns:
        if turn["role"] == "system":
            waiting.append(turn["content"])
        elif turn["role"] == "user":
            placed.append({**turn, "content": "\n\n".join([*waiting, turn["content"]])})
            waiting = []
        else:
            placed.append(turn)
    return [*placed, {"role": "user", "content": "\n\n".join(waiting)}] if waiting else placed


def perfect_completion(answer: str, convention: str, thoughts: str = "") -> str:
    """Returns a complete completion in the form that a convention asks for."""
    if convention in ANSWER_TAGS:
        # With the line breaks that open-r1's format reward requires; the others accept them.
        return f"<think>\n{thoughts}\n</think>\n<answer>\n{answer}\n</answer>"
    if convention == "hashes":
        return f"{thoughts}\n#### {answer}"
    return f"<think>{thoughts}</think>\\boxed{{{answer}}}"


def prefill_of(rendered_prompt: str) -> str:
    """Returns the think tag that a rendered prompt already opened, with the text after it, or "".

    DeepSeek-R1's and QwQ's templates end in `<think>\\n`: the completion begins inside it.
    """
    head, tag, tail = rendered_prompt.rpartition(THINK_OPEN)
    return tag + tail if tag and not tail.strip() else ""
