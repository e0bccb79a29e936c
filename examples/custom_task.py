"""A task of your own: examples with gold answers, and a perfect completion for each.

    lowmem-rl train --task examples/custom_task.py:Larger

Run this file alone to see a few examples.
"""

import random
from collections.abc import Iterator

from lowmem_rl import Example, Selection, conversation


class Larger:
    """`Which is larger, 43 or 71?`"""

    name = "larger"
    summary = "which of two numbers is larger"

    def __init__(self, convention: str = "boxed") -> None:
        self.convention = convention

    def examples(self, selection: Selection) -> Iterator[Example]:
        """Yields pairs of even sum to train on and pairs of odd sum to evaluate: each once, and none in both."""
        parity = 0 if selection.split == "train" else 1
        pairs = [(a, b) for a in range(100) for b in range(100) if a != b and (a + b) % 2 == parity]
        random.Random(selection.seed).shuffle(pairs)
        for left, right in pairs[: selection.limit]:
            yield Example(
                id=f"larger/{left}-{right}",
                prompt=conversation(f"Which is larger, {left} or {right}?", self.convention),
                answer=str(max(left, right)),
            )

    def gold_completion(self, example: Example) -> str:
        """Returns the answer in its box, after an empty think block."""
        return f"<think></think>\\boxed{{{example.answer}}}"


if __name__ == "__main__":
    for example in Larger("bare").examples(Selection("test", limit=3)):
        print(f"{example.question}  ->  {example.answer}")
