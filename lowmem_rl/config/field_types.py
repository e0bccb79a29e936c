"""Types of settings: what TOML and a command line can write for them, and their form."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, WithJsonSchema

from lowmem_rl.config import layer_choice, rank_pattern


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _text_as_one(value: object) -> object:
    return (value,) if isinstance(value, str) else _as_tuple(value)


def _whole_as_integer(value: float) -> float:
    return int(value) if value.is_integer() else value


def _numbers_as_text(value: object) -> object:
    """`--set trainable.layers=3` is a number, a list of numbers is what PEFT takes."""
    numbers = value if isinstance(value, list) else [value]
    is_integers = all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
    return ",".join(map(str, numbers)) if numbers and is_integers else value


Layers = Annotated[str, BeforeValidator(_numbers_as_text), AfterValidator(layer_choice.check_form)]
Integers = Annotated[tuple[int, ...], BeforeValidator(_as_tuple)]
Numbers = Annotated[tuple[Annotated[float, AfterValidator(_whole_as_integer)], ...], BeforeValidator(_as_tuple)]
Names = Annotated[tuple[str, ...], BeforeValidator(_text_as_one)]
Trackers = Annotated[tuple[Literal["tensorboard", "wandb", "trackio"], ...], BeforeValidator(_text_as_one)]

Extra = Annotated[tuple[Literal["embed_tokens", "lm_head", "norm", "norms"], ...], BeforeValidator(_text_as_one)]

Auto = Literal["auto"]
"""A setting that the planner chooses for the card: `resolve_auto` of planning."""
_MAX_ROWS = 65536
Rows = Annotated[
    Annotated[int, Field(ge=1, le=_MAX_ROWS), Tag("rows")] | Annotated[Auto, Tag("auto")],
    # A plain union would report two problems for one wrong value.
    Discriminator(lambda value: "auto" if isinstance(value, str) else "rows"),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": _MAX_ROWS}, {"const": "auto"}]}),
]

MAX_RANK = 1024
Ranks = Annotated[dict[str, Annotated[int, Field(ge=1, le=MAX_RANK)]], AfterValidator(rank_pattern.check_patterns)]
Alphas = Annotated[dict[str, Annotated[int, Field(ge=1)]], AfterValidator(rank_pattern.check_patterns)]
Weights = dict[str, Annotated[float, Field(allow_inf_nan=False)]]
