"""Is a completion right: said by the rewards that judge its task's answers, and never by what the run pays for.

- Tasks whose answers are verified (`boxed_answer` or `any_answer` among their judges, and tasks that name none):
  leniently the answer wherever it stands, strictly the last box.
- Tasks with judges of their own, such as an expression that must come to a target: right is what they pay in full.
- Tasks that only a model can grade, by likelihood: an accuracy has to be told from text alone, and is what is sure
  rather than all that is right. Where an example holds the `choices` its answer was one of, what is stated must be
  mostly the answer's words, and less of each other choice; strictly, and without choices, it must be the
  answer word for word.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lowmem_rl.example import Example
from lowmem_rl.rewards.answer_extraction import stated_answer
from lowmem_rl.rewards.boxed import ANY_ANSWER, BOXED_ANSWER
from lowmem_rl.rewards.model_reward import ModelReward
from lowmem_rl.rewards.reward import OnFailure, Reward, RewardSet
from lowmem_rl.rewards.reward_registry import load_reward
from lowmem_rl.tasks.hub_task import VERIFIED
from lowmem_rl.tasks.task import Task
from lowmem_rl.verify.extract import after_thinking, lenient_answer, strict_answer

CLOSE_TO = 1e-6
MOST_WORDS = 0.5
"""Of the answer's words that are said, and of the said words that are the answer's."""
_WORD = re.compile(r"\w+")


Find = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Grader:
    """Right is what one of `lenient` pays in full; strictly right is what each of `strict` does."""

    lenient: tuple[Reward, ...]
    strict: tuple[Reward, ...]
    finds: Find
    """Returns the answer that a completion gives, as the lenient ones look for it; None where it gives none."""
    finds_strictly: Find

    def is_right(self, completion: str, example: Example, on_failure: OnFailure | None = None) -> bool:
        """Says whether a completion is right; one on which a judge fails, as told to `on_failure`, is not.

        Raises `RewardError` instead where there is no `on_failure`.
        """
        return any(_paid_in_full(self.lenient, completion, example, on_failure))

    def is_strictly_right(self, completion: str, example: Example, on_failure: OnFailure | None = None) -> bool:
        """Says whether a completion is right and in the asked form. Fails as `is_right` does."""
        return all(_paid_in_full(self.strict, completion, example, on_failure))


def grader_of(task: Task) -> Grader:
    """Returns what judges a task's answers. Raises `UnknownName` or `TaskError` for judges that are none."""
    names: Sequence[str] = getattr(task, "rewards", ())
    named = tuple(load_reward(name) for name in names)
    if named and all(isinstance(reward, ModelReward) for reward in named):
        return Grader((NEAREST_CHOICE,), (WORD_FOR_WORD,), _stated_or_all, stated_answer)
    # What a user's plain function pays at most is not known.
    readers = tuple(reward for reward in named if not isinstance(reward, ModelReward) and reward.high < math.inf)
    if readers and not VERIFIED & set(names):
        return Grader(readers, readers, _stated_or_all, _stated_or_all)
    return Grader((ANY_ANSWER,), (BOXED_ANSWER,), lenient_answer, strict_answer)


def score_nearest_choice(completion: str, example: Example) -> float:
    """1 if what is stated is mostly the answer's words, and less of each other choice is said, else 0."""
    said, meant = _words(stated_answer(completion) or after_thinking(completion)), _words(example.answer)
    others = [_words(choice) for choice in example.extra.get("choices", ()) if choice != example.answer]
    if not others:
        return score_word_for_word(completion, example)
    is_most = min(_share_in(said, meant), _share_in(meant, said)) > MOST_WORDS
    return float(is_most and _share_in(said, meant) > max(_share_in(said, other) for other in others))


def score_word_for_word(completion: str, example: Example) -> float:
    """1 if what is stated in the asked form is the answer, up to case and punctuation, else 0."""
    return float(_words(stated_answer(completion) or "") == _words(example.answer))


def _stated_or_all(completion: str) -> str | None:
    return stated_answer(completion) or after_thinking(completion).strip() or None


def _paid_in_full(
    rewards: tuple[Reward, ...], completion: str, example: Example, on_failure: OnFailure | None
) -> list[bool]:
    scores = RewardSet(rewards, (1.0,) * len(rewards)).score(completion, example, on_failure).scores
    pairs = ((scores[reward.name], reward.high) for reward in rewards)
    return [score is not None and score >= high - CLOSE_TO for score, high in pairs]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _share_in(text: Sequence[str], words: Sequence[str]) -> float:
    """Returns which share of the words stands in a text, each as often as it does there."""
    return (Counter(text) & Counter(words)).total() / max(1, len(words))


NEAREST_CHOICE = Reward("nearest_choice", score_nearest_choice)
WORD_FOR_WORD = Reward("word_for_word", score_word_for_word)
