"""How long a row may be: the one place that knows the longest row of each use of the model.

On a GPU Unsloth's forward cuts a row at the `max_seq_length` of its modules, with a warning and without an error
(unsloth/models/llama.py, LlamaModel_fast_forward). So `load_policy` is given every use, the modules get the longest
row of them, and a row that is longer all the same is left out or refused. Our own decoder cuts nothing and needs no
such limit, and on a CPU nothing is cut.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.errors import ConfigError
from lowmem_rl.example import Message

TRIAL: tuple[Message, ...] = ({"role": "user", "content": "How many days do seven weeks have? Count them."},)
"""The prompt on which the sampler is tried at loading."""
TRIAL_TOKENS = 32

Tokenize = Callable[[Sequence[Message]], Sequence[int]]
Encode = Callable[[str], Sequence[int]]


@dataclass(frozen=True, slots=True)
class SequenceUse:
    """One use of the model: its longest row has the longest of `prompts` and of `answers`, and `tokens` more.

    `again` is room for a completion's text that is encoded again: that may take more tokens than were sampled, for a
    tokenizer splits text in one way of many. Rows have this room as far as the model's positions allow.
    """

    what: str
    tokens: int
    prompts: Sequence[Sequence[Message]] = ()
    answers: Sequence[str] = ()
    again: int = 0

    def row(self, tokenize: Tokenize, encode: Encode) -> int:
        """Returns the tokens of its longest row, with the room for text that is encoded again."""
        prompt = max((len(tokenize(prompt)) for prompt in self.prompts), default=0)
        answer = max((len(encode(answer)) for answer in set(self.answers)), default=0)
        return self.tokens + prompt + answer + self.again


def training_row(config: RunConfig) -> int:
    """Returns the most tokens of a row of training."""
    return config.grpo.max_prompt_tokens + config.grpo.max_completion_tokens


def uses_of(config: RunConfig) -> tuple[SequenceUse, ...]:
    """Returns the uses of every run: the rows of training, and the sampler's trial at loading."""
    trial = SequenceUse("the sampler's trial", TRIAL_TOKENS, prompts=[TRIAL])
    return SequenceUse("training", training_row(config)), trial


def reading_answers(config: RunConfig, answers: Sequence[str]) -> SequenceUse:
    """Returns the use of rewards that read `answers` after a completion."""
    again = config.grpo.max_completion_tokens
    return SequenceUse("a reward that reads answers", training_row(config), answers=answers, again=again)


def asking(what: str, prompts: Sequence[Sequence[Message]], max_tokens: int) -> SequenceUse:
    """Returns the use of an evaluation: completions of `prompts`, whose text may be encoded and read again.

    It samples only those prompts for which `Policy.has_room`.
    """
    return SequenceUse(what, max_tokens, prompts=prompts, again=max_tokens)


def longest_row(uses: Iterable[SequenceUse], tokenize: Tokenize, encode: Encode, positions: int) -> int:
    """Returns the tokens of the longest row of all uses, the model's `positions` at most.

    Longer prompts and answers are left out by their readers. Raises `ConfigError` if even without them a use has more
    tokens than the model has positions.
    """
    longest = 0
    for use in uses:
        if use.tokens > positions:
            raise ConfigError(
                f"The rows of {use.what} have at least {use.tokens} tokens, but the model takes {positions}.",
                hint="Lower grpo.max_completion_tokens or grpo.max_prompt_tokens.",
            )
        longest = max(longest, use.row(tokenize, encode))
    return min(longest, positions)
