"""Is a completion right, and which answers are equal: decided by the task's own rewards, never by what a run pays.

- Tasks whose answers are verified (`boxed_answer` or `any_answer` among their rewards, and tasks that name none):
  lenient is the answer anywhere in the completion, strict is the last box.
- Tasks with a checker of their own, such as an expression that must reach a target: right is what it pays in full.
- Tasks that only a model can score, by likelihood: accuracy is read from the text alone and is a lower bound. If an
  example holds the `choices` its answer was one of, the final answer must be mostly the gold answer's words, with a
  smaller share of each other choice; strictly, and without choices, it must be the gold answer word for word.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from lowmem_rl.example import Example
from lowmem_rl.rewards.answer_extraction import stated_answer
from lowmem_rl.rewards.boxed import ANY_ANSWER, BOXED_ANSWER
from lowmem_rl.rewards.model_reward import ModelReward
from lowmem_rl.rewards.reward import OnFailure, Reward, RewardSet
from lowmem_rl.rewards.reward_registry import load_reward
from lowmem_rl.tasks.hub_task import VERIFIED
from lowmem_rl.tasks.task import Task
from lowmem_rl.verify.extract import after_thinking, lenient_answer, strict_answer
from lowmem_rl.verify.normalize import normal_form
from lowmem_rl.verify.values import value_of

_TOLERANCE = 1e-6
_MOST_WORDS = 0.5
"""Share of the gold answer's words that are given, and of the given words that are the gold answer's."""

Find = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Grader:
    """Right is what one of `lenient` pays in full; strictly right is what each of `strict` does."""

    lenient: tuple[Reward, ...]
    strict: tuple[Reward, ...]
    find: Find
    """Returns the answer that a completion gives, as the lenient rewards look for it; None if it gives none."""
    find_strict: Find

    def is_right(self, completion: str, example: Example, on_failure: OnFailure | None = None) -> bool:
        """Returns whether a completion is right. One on which a reward fails is reported to `on_failure` and wrong.

        Raises `RewardError` if a reward fails and there is no `on_failure`.
        """
        return any(_paid_in_full(self.lenient, completion, example, on_failure))

    def is_strictly_right(self, completion: str, example: Example, on_failure: OnFailure | None = None) -> bool:
        """Returns whether a completion is right and in the requested format. Fails as `is_right` does."""
        return all(_paid_in_full(self.strict, completion, example, on_failure))


def grader_of(task: Task) -> Grader:
    """Returns the grader of a task's answers. Raises `UnknownName` or `TaskError` if a reward it names is none."""
    names: Sequence[str] = getattr(task, "rewards", ())
    rewards = tuple(load_reward(name) for name in names)
    if rewards and all(isinstance(reward, ModelReward) for reward in rewards):
        return Grader((_NEAREST_CHOICE,), (_WORD_FOR_WORD,), _stated_or_all, stated_answer)
    # The most that a user's plain function pays is not known.
    readers = tuple(reward for reward in rewards if not isinstance(reward, ModelReward) and reward.high < math.inf)
    if readers and not VERIFIED & set(names):
        return Grader(readers, readers, _stated_or_all, _stated_or_all)
    return Grader((ANY_ANSWER,), (BOXED_ANSWER,), lenient_answer, strict_answer)


def vote_of(answer: str | None) -> str | None:
    """Returns the key that equal answers share: the same number, else the same words.

    `1/2` and `0.5` are equal, `5 apples` and `5 pears` are not. Symbolic algebra is not used: two forms of one
    expression differ, which can only lower the majority's share.
    """
    normal = None if answer is None else normal_form(answer)
    if normal is None:
        return None
    value = value_of(normal.text)
    text = str(value) if isinstance(value, Fraction) else normal.text.casefold()
    return " ".join(filter(None, [text, *sorted(normal.signs), normal.unit]))


def _paid_in_full(
    rewards: tuple[Reward, ...], completion: str, example: Example, on_failure: OnFailure | None
) -> list[bool]:
    scores = RewardSet(rewards, (1.0,) * len(rewards)).score(completion, example, on_failure).scores
    pairs = ((scores[reward.name], reward.high) for reward in rewards)
    return [score is not None and score >= high - _TOLERANCE for score, high in pairs]


def _stated_or_all(completion: str) -> str | None:
    return stated_answer(completion) or after_thinking(completion).strip() or None


def _score_nearest_choice(completion: str, example: Example) -> float:
    given, gold = _words(_stated_or_all(completion) or ""), _words(example.answer)
    others = [_words(choice) for choice in example.extra.get("choices", ()) if choice != example.answer]
    if not others:
        return _score_word_for_word(completion, example)
    is_most = min(_share_in(given, gold), _share_in(gold, given)) > _MOST_WORDS
    return float(is_most and _share_in(given, gold) > max(_share_in(given, other) for other in others))


def _score_word_for_word(completion: str, example: Example) -> float:
    return float(_words(stated_answer(completion) or "") == _words(example.answer))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _share_in(text: Sequence[str], words: Sequence[str]) -> float:
    """Returns the share of the words that occur in a text, each counted as often as it occurs there."""
    return (Counter(text) & Counter(words)).total() / max(1, len(words))


_NEAREST_CHOICE = Reward("nearest_choice", _score_nearest_choice)
_WORD_FOR_WORD = Reward("word_for_word", _score_word_for_word)
