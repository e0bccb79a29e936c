"""Which form of reward function a callable has, by the names of its parameters.

    ours   (completion, example) -> a number, by position, or by these names if they are in another order
    TRL    (completions, **kwargs) -> a list of numbers; also prompts, completion_ids and any column, by name
    verl   (data_source, solution_str, ground_truth, extra_info) -> a number, or a dictionary with a "score"

TRL: huggingface.co/docs/trl/grpo_trainer, "Using a custom reward function". verl: verl.readthedocs.io,
"Implement Reward Function for Dataset".
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from inspect import Parameter, Signature
from types import CodeType, FunctionType, MethodType
from typing import Any, Literal

from lowmem_rl.errors import TaskError

Form = Literal["ours", "trl", "verl", "verl_batch"]

THE_FORMS = (
    "Three forms work: (completion, example) -> number; TRL's (completions, **kwargs) -> list of numbers; "
    "verl's (data_source, solution_str, ground_truth, extra_info) -> number."
)
_OF_TRL = {"completions", "completion_ids"}
_ANSWERS = {"answer", "ground_truth", "solution"}
_FIRST = {"prompt", "prompts", "question", "query"}
_SECOND = {"answers", "completion", "expected", "gold", "gt", "label", "output", "reference", "response", "target"}
"""A first or a second parameter of such a name expects another text than ours: a completion, then the whole example."""
_VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def form_of(function: Callable[..., Any], name: str) -> tuple[Form, Signature]:
    """Returns the form of a function and the signature that shows it; `name` is the user's, for errors.

    Raises `TaskError` for a signature of none of the forms.
    """
    signature = _visible_signature(function)
    names = _names(signature)
    kinds = {p.kind for p in signature.parameters.values()}
    if not names and Parameter.VAR_KEYWORD in kinds:
        names = _looked_up(function) or (set() if Parameter.VAR_POSITIONAL in kinds else _OF_TRL)
    if names & _OF_TRL:
        return "trl", signature
    for form, known in _VERL.items():
        if known[0] in names:
            _check_known(signature, known, name)
            return form, signature
    if is_by_name(signature) or (not _expects_texts(signature) and _binds(signature, 0, 0)):
        return "ours", signature
    raise TaskError(f"{name} takes {signature}, which is no form of a reward function.", hint=THE_FORMS)


_VERL: dict[Form, tuple[str, ...]] = {
    "verl": ("solution_str", "data_source", "ground_truth", "extra_info"),
    "verl_batch": ("solution_strs", "data_sources", "ground_truths", "extra_infos"),
}


def is_by_name(signature: Signature) -> bool:
    """Returns whether a function of our form is called by the names `completion` and `example`: not in this order."""
    by_position = _binds(signature, 0, 0) and [*signature.parameters][:2] == ["completion", "example"]
    known = {"completion", "example"} <= _names(signature) and _binds(signature, completion=0, example=0)
    return known and not by_position


def accepted(signature: Signature, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those arguments that can be passed by name: all if there is a `**kwargs`."""
    if any(p.kind is Parameter.VAR_KEYWORD for p in signature.parameters.values()):
        return dict(arguments)
    return {name: value for name, value in arguments.items() if name in _names(signature)}


def missing(signature: Signature, arguments: Mapping[str, Any]) -> list[str]:
    """Returns the parameters without a default that `arguments` does not name."""
    required = [p.name for p in signature.parameters.values() if p.default is p.empty and p.kind not in _VARIADIC]
    return [name for name in required if name not in arguments]


def callables_in(function: Any) -> Iterator[Any]:
    """Yields what a callable wraps: of a partial, a bound method, a decorator's or a factory's closure."""
    if isinstance(function, partial):
        yield function.func
        yield from filter(callable, [*function.args, *function.keywords.values()])
    if isinstance(function, MethodType):
        yield function.__func__
    if hasattr(function, "__wrapped__"):
        yield function.__wrapped__
    for cell in getattr(function, "__closure__", None) or ():
        try:
            content = cell.cell_contents
        except ValueError:  # not filled yet
            continue
        if callable(content):
            yield content


def _visible_signature(function: Any) -> Signature:
    """Returns the outermost signature that names a parameter: a decorator's `(*args, **kwargs)` hides another."""
    todo, seen, outermost = [function], list[Any](), Signature()
    for item in todo:
        if any(item is one for one in seen):
            continue
        seen.append(item)
        todo += _wrapped_by(item)
        try:
            signature = inspect.signature(item, follow_wrapped=isinstance(item, partial))
        except (TypeError, ValueError):  # written in C, as what functools.lru_cache returns
            continue
        if any(p.kind not in _VARIADIC for p in signature.parameters.values()):
            return signature
        outermost = signature if item is function else outermost
    return outermost


def _wrapped_by(function: Any) -> Iterator[Any]:
    """Yields the functions that a wrapper may call, with the same `self`."""
    for inner in callables_in(function):
        if isinstance(function, MethodType):
            yield from (one.__get__(function.__self__) for one in callables_in(inner) if isinstance(one, FunctionType))
        elif isinstance(inner, FunctionType | MethodType | partial):
            yield inner


def _names(signature: Signature) -> set[str]:
    by_name = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    return {p.name for p in signature.parameters.values() if p.kind in by_name}


def _expects_texts(signature: Signature) -> bool:
    first, second, *_ = [*signature.parameters, "", ""]
    return bool(_names(signature) & _ANSWERS) or first in _FIRST or second in _SECOND


def _looked_up(function: Any) -> set[str]:
    """Returns the arguments of TRL or verl that code without named parameters looks up: `kwargs["solution_str"]`."""
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    known = _OF_TRL.union(*_VERL.values())
    return known & set(constants_of(code)) if isinstance(code, CodeType) else set()


def constants_of(code: CodeType) -> Iterator[str]:
    """Yields the texts in a code object and in the lambdas and comprehensions inside it."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from constants_of(constant)
        elif isinstance(constant, str):
            yield constant


def _binds(signature: Signature, *values: Any, **named: Any) -> bool:
    try:
        signature.bind(*values, **named)
    except TypeError:
        return False
    return True


def _check_known(signature: Signature, known: tuple[str, ...], name: str) -> None:
    if unknown := missing(signature, dict.fromkeys(known)):
        raise TaskError(
            f"{name} needs {', '.join(unknown)}, which a reward function is not given here.",
            hint=f"verl's form is ({', '.join(known)}): give other parameters a default, or use functools.partial.",
        )
