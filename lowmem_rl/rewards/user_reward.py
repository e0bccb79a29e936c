"""A user's callable as a reward: in our form, TRL's or verl's. Any of them may be `async`.

All completions of a batch are one call of a TRL function, and one round of calls of a verl function.
"""

import asyncio
import inspect
import math
import threading
from collections.abc import Callable, Mapping, Sequence, Set
from functools import cache, partial
from inspect import Signature
from pathlib import Path
from typing import Any

from lowmem_rl.config.user_code import in_one_line
from lowmem_rl.errors import RewardError, TaskError
from lowmem_rl.example import Example
from lowmem_rl.rewards.message_format import reads_messages
from lowmem_rl.rewards.reward import Reward, RewardFailed, Rollout, failure
from lowmem_rl.rewards.rollout_columns import trl_arguments, verl_arguments, verl_batch_arguments
from lowmem_rl.rewards.signatures import THE_FORMS, accepted, form_of, is_by_name, missing

_ONE_EACH = "Return a list with one number, or None, for each completion."


def reward_of(found: object, source: str) -> Reward:
    """Returns a callable from a user's file as a reward of unknown range; of a class, an instance is made.

    Raises `TaskError` if it has none of the three forms.
    """
    path, _, name = source.rpartition(":")
    function = _function_of(found, source)
    form, signature = form_of(function, source)
    if form == "ours":
        score_ours = partial(_score_ours, function, is_by_name(signature))
        return Reward(name, score_ours, low=-math.inf, high=math.inf, source=source)
    if form == "trl":
        as_messages = reads_messages(function, signature, Path(path).resolve().parent)
        call = partial(_call_trl, function, signature, as_messages)
    else:
        call = partial(_call_verl if form == "verl" else _call_verl_batch, function, signature)
    score_batch = partial(_score_batch, name, call)

    def score(completion: str, example: Example) -> Any:
        return score_batch(Rollout([completion], [example]))[0]

    return Reward(name, score, -math.inf, math.inf, "unknown", score_batch, source)


class _Miscounted(Exception):
    """What a function returned is not one score for each completion."""


def _function_of(found: Any, source: str) -> Callable[..., Any]:
    """Returns what is called: a function, a method, a partial, or the `__call__` of an instance."""
    if isinstance(found, type) and "__call__" in dir(found):
        try:
            found = found()
        except Exception as error:
            what = f"{source} cannot be made without arguments: {in_one_line(error)}."
            raise TaskError(what, hint="Name an instance of the class.") from error
    if isinstance(found, type) or not callable(found):
        raise TaskError(f"{source} is not a reward.", hint=f"Name a function, or a Reward. {THE_FORMS}")
    call: Callable[..., Any] = found.__call__ if inspect.ismethod(found.__call__) else found
    return call


def _score_ours(function: Callable[..., Any], by_name: bool, completion: str, example: Example) -> Any:
    call = function(completion=completion, example=example) if by_name else function(completion, example)
    return _settled([call])[0]


def _score_batch(name: str, call: Callable[[Rollout], Sequence[Any]], rollout: Rollout) -> Sequence[Any]:
    """Calls a function. Raises `RewardFailed`, also for another number of scores than of completions."""
    failed = partial(failure, name, rollout.completions[0], rollout.examples[0])
    try:
        return call(rollout)
    except _Miscounted as error:
        raise failed(str(error), _ONE_EACH, fault="miscounts") from error
    except RewardFailed:
        raise
    except RewardError as error:
        raise failed(f"failed: {str(error).rstrip('.')}", error.hint) from error
    except (Exception, SystemExit) as error:
        raise failed(f"raised {in_one_line(error)}", "Run it by itself first, on this completion.") from error


def _call_trl(function: Callable[..., Any], signature: Signature, as_messages: bool, rollout: Rollout) -> list[Any]:
    optional = {p.name for p in signature.parameters.values() if p.default is not p.empty}
    arguments = trl_arguments(rollout, as_messages=as_messages, optional=optional)
    if lacking := missing(signature, arguments):
        what = f"needs {', '.join(lacking)}; what the examples have is {', '.join(sorted(arguments))}"
        raise RewardError(what, hint="Rename the parameter to a column of the data, or give it a default.")
    (result,) = _settled([function(**accepted(signature, arguments))])
    return _one_each(result, len(rollout.completions))


def _call_verl(function: Callable[..., Any], signature: Signature, rollout: Rollout) -> list[Any]:
    calls = verl_arguments(rollout)
    return [_score_in(result) for result in _settled([function(**accepted(signature, call)) for call in calls])]


def _call_verl_batch(function: Callable[..., Any], signature: Signature, rollout: Rollout) -> list[Any]:
    (result,) = _settled([function(**accepted(signature, verl_batch_arguments(rollout)))])
    return [_score_in(one) for one in _one_each(result, len(rollout.completions))]


def _one_each(result: Any, count: int) -> list[Any]:
    """Returns the scores in a list, tuple, array or tensor. Raises `_Miscounted` if they are not `count`."""
    unordered = isinstance(result, str | bytes | Mapping | Set)
    try:
        scores = None if unordered else list(result)
    except TypeError:
        scores = None
    if scores is None:
        shown = " ".join(repr(result).split())
        raise _Miscounted(f"returned {shown:.80}, not a list of {count} score{'s' * (count != 1)}")
    if len(scores) != count:
        raise _Miscounted(f"returned {len(scores)} scores for {count} completion{'s' * (count != 1)}")
    return scores


def _score_in(result: Any) -> Any:
    """Returns the score in what a verl function returns: a number, or a dictionary or object that holds it."""
    return result.get("score", result) if isinstance(result, Mapping) else getattr(result, "score", result)


def _settled(results: Sequence[Any]) -> list[Any]:
    """Returns the results of calls; those of `async` functions are awaited together."""
    if not any(map(inspect.isawaitable, results)):
        return list(results)

    async def together() -> list[Any]:
        return await asyncio.gather(*(_outcome(one) for one in results))

    outcomes = asyncio.run_coroutine_threadsafe(together(), _event_loop()).result()
    for outcome in outcomes:
        if isinstance(outcome, Exception | SystemExit):
            raise outcome
    return outcomes


async def _outcome(result: Any) -> Any:
    """Returns a result or the error in its place: a SystemExit would end the loop's thread."""
    try:
        return await result if inspect.isawaitable(result) else result
    except (Exception, SystemExit) as error:  # noqa: BLE001 - raised again by `_settled`
        return error


@cache
def _event_loop() -> asyncio.AbstractEventLoop:
    """Returns one loop for the life of the process, as TRL has it: clients that functions keep are bound to theirs."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="rewards", daemon=True).start()
    return loop
