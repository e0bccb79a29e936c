"""The lessons of the tiny bases: two ways to answer each problem, and how often each is shown.

Most answers are careless: at once, or by a habit that is mostly wrong. The others write the working, as at school,
and are right. Greedy decoding is then careless, sampling sometimes works, and GRPO can find what is rewarded.

`arithmetic`, the embedded model, guesses at `What is 866 * 7?` or multiplies digit by digit. Both ways keep the
format, so that only the answer's reward can teach it. The other bases are not shipped. Their careless way also
lacks the format (countdown), is right in a few entries (matrix_inverse), or is long, repetitive and in another
language (program_synthesis), so that each family of rewards has something to teach. Their working repeats the
numbers and copies from there. What it does not write out, an operation or a sign, is often wrong.

Lessons use only problems of a task's `train` split, never a held-out one.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count

from lowmem_rl.config.run_config import TaskConfig
from lowmem_rl.example import Example, Message
from lowmem_rl.rewards.matrix import read_matrix
from lowmem_rl.tasks.countdown import gold_expression
from lowmem_rl.tasks.task import Selection, Task
from lowmem_rl.tasks.task_registry import load_task

MOST_TAUGHT = 10_000
"""Problems: the last few of a level take longer to find than all others."""
MEASURED = 500


@dataclass(frozen=True, slots=True)
class Lesson:
    """A rendered prompt and its completion."""

    prompt: str
    completion: str


Answering = Callable[[Example], str]


def guess_product(example: Example) -> str:
    """Answers at once, in the full format: an empty think block, then the box."""
    return f"<think></think>\\boxed{{{example.answer}}}"


def multiply(example: Example) -> str:
    """Multiplies digit by digit from the right, with the carry: `6*7+0=42`, `6*7+4=46`, `8*7+4=60`."""
    left, _, right = example.question.removeprefix("What is ").rstrip("?").split()
    lines, carry = [], 0
    for digit in reversed(left):
        product = int(digit) * int(right) + carry
        lines.append(f"{digit}*{right}+{carry}={product}")
        carry = product // 10
    return "<think>{}</think>\\boxed{{{}}}".format("\n".join(lines), example.answer)


def multiply_all(example: Example) -> str:
    """Multiplies the numbers, for any target, in a box instead of the tags that the prompt asks for."""
    numbers = example.extra["numbers"]
    return f"The numbers {list(numbers)} make \\boxed{{{' * '.join(map(str, numbers))}}}"


def choose_operation(example: Example) -> str:
    """Repeats the problem, then writes an expression that solves it: all copied but the operation."""
    problem, answer = example.question.partition(".")[0], gold_expression(example)
    return f"<think>{problem}: {answer}</think><answer>{answer}</answer>"


def repeat_matrix(example: Example) -> str:
    """Answers with the matrix itself."""
    return f"<think></think>\\boxed{{{example.question.rpartition('A = ')[2]}}}"


def invert(example: Example) -> str:
    """Repeats the matrix with its determinant, 1 or -1, then writes the inverse: all copied but the determinant."""
    matrix = example.question.rpartition("A = ")[2]
    rows = read_matrix(matrix)
    assert rows is not None, matrix
    (a, b), (c, d) = rows
    return f"<think>{matrix} has {a * d - b * c}</think>\\boxed{{{example.answer}}}"


def ramble(example: Example) -> str:
    """Copies two values three times after a foreign word, then answers with a multiple of the first."""
    (_, first), (_, second) = example.extra["points"][:2]
    working = "\n".join([f"числа f(1) = {first}, f(2) = {second}"] * 3)
    return f"<think>{working}</think>\\boxed{{{first}*n}}"


def continue_sequence(example: Example) -> str:
    """Repeats the first two values and does not compute their difference: `8 + (11 - 8)*(n - 1)`."""
    (_, first), (_, second) = example.extra["points"][:2]
    return f"<think>from f(1) = {first} to f(2) = {second}</think>\\boxed{{{first} + ({second} - {first})*(n - 1)}}"


@dataclass(frozen=True, slots=True)
class Recipe:
    """The lessons of a base: two ways to answer the problems of a task, and how often each."""

    task: str
    convention: str
    levels: tuple[int, ...]
    measured_levels: tuple[int, ...]
    guess: Answering
    guess_opens: str
    """Start of a careless answer, never of working."""
    work: Answering
    guess_share: float
    """Well above 0.5, so that greedy decoding guesses; well below 1, so that most groups sample some work."""
    practice_guess_share: float
    """Of the first steps. Guessed right answers are noise to a model that cannot work yet: with the mixture from the
    start, for 1500 steps, arithmetic's sampled working was right in 0.63 of the cases, not in 1.0. A careless habit
    is a rule, which also needs practice."""
    practice_steps: int
    steps: int
    batch: int
    """Small: after 20,000 multiplications in batches of 32, 64 and 128, 0.97, 0.46 and 0.04 of answers were right."""
    vocabulary: int
    """256 bytes, 3 specials, the fixed phrases, and about as many merges as the lessons use."""
    longest_completion: int
    measures: tuple[str, ...]
    """Rewards in the model card."""

    @property
    def task_at_work(self) -> Task:
        """The task with the prompt convention of the lessons."""
        return load_task(TaskConfig.model_validate({"name": self.task, "prompt": self.convention}))

    def taught_problems(self, most: int = MOST_TAUGHT) -> list[Example]:
        """Returns the first problems of the `train` split at the taught levels, by default nearly all."""
        return list(self.task_at_work.examples(Selection("train", most, levels=self.levels)))

    def held_out_problems(self, most: int = MEASURED) -> list[Example]:
        return list(self.task_at_work.examples(Selection("test", most, levels=self.measured_levels)))


RECIPES = {
    "arithmetic": Recipe(
        task="arithmetic",
        convention="bare",
        # Products with one digit. Nearly all problems are of level 3, which has ten times as many as level 2.
        levels=(2, 3),
        measured_levels=(3,),
        guess=guess_product,
        guess_opens="<think></think>",
        work=multiply,
        # At 0.6 a run with random rewards drifted across 0.5, in one of five seeds, and seemed to have learned.
        guess_share=0.7,
        practice_guess_share=0.0,
        practice_steps=800,
        steps=1400,
        batch=32,
        vocabulary=320,
        longest_completion=64,
        measures=("any_answer", "boxed_answer", "think_format"),
    ),
    "countdown": Recipe(
        task="countdown",
        convention="countdown",
        levels=(2,),
        measured_levels=(2,),
        guess=multiply_all,
        guess_opens="The",
        work=choose_operation,
        guess_share=0.7,
        practice_guess_share=0.4,
        practice_steps=650,
        steps=950,
        batch=16,
        vocabulary=448,
        longest_completion=64,
        measures=("countdown", "think_format", "answer_tags", "tag_count"),
    ),
    "matrix_inverse": Recipe(
        task="matrix_inverse",
        convention="bare",
        levels=(1,),
        measured_levels=(1,),
        guess=repeat_matrix,
        guess_opens="<think></think>",
        work=invert,
        guess_share=0.7,
        practice_guess_share=0.4,
        practice_steps=800,
        steps=1100,
        batch=16,
        vocabulary=384,
        longest_completion=64,
        measures=("boxed_answer", "matrix_rows", "matrix_frobenius", "matrix_l1"),
    ),
    "program_synthesis": Recipe(
        task="program_synthesis",
        convention="bare",
        levels=(1,),
        measured_levels=(1,),
        guess=ramble,
        guess_opens="<think>числа",
        work=continue_sequence,
        guess_share=0.7,
        practice_guess_share=0.4,
        practice_steps=400,
        steps=600,
        batch=16,
        vocabulary=384,
        longest_completion=80,
        measures=("program_synthesis", "repetition", "language_consistency"),
    ),
}


def course(recipe: Recipe, rng: random.Random) -> Iterator[Lesson]:
    """Yields endless lessons: a rendered problem, worked out or guessed, more often after the practice."""
    problems = [(render(example.prompt), example) for example in recipe.taught_problems()]
    for number in count():
        is_practice = number < recipe.practice_steps * recipe.batch
        guess_share = recipe.practice_guess_share if is_practice else recipe.guess_share
        prompt, example = rng.choice(problems)
        answer = recipe.guess if rng.random() < guess_share else recipe.work
        yield Lesson(prompt, answer(example))


def render(prompt: Iterable[Message]) -> str:
    """Returns the prompt as the chat template renders it, up to the assistant's turn."""
    turns = (f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in prompt)
    return "".join(turns) + "<|im_start|>assistant\n"
