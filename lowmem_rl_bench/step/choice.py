"""The part of the benchmark that a caller asks for by names."""

from collections.abc import Iterable, Sequence

from lowmem_rl.errors import ConfigError
from lowmem_rl_bench.step.arms import ARMS, NAMED_ONLY, OTHERS, OURS
from lowmem_rl_bench.step.replays import PRECISIONS, SETS, Protocol


def chosen_protocol(
    arms: Sequence[str], precisions: Sequence[str], shapes: Sequence[str], *, savings: Sequence[str], rounds: int
) -> Protocol:
    """Returns what is measured; a list without a name leaves the choice as it is. Raises `ConfigError`."""
    _check("--arms", arms, (OURS.name, *(arm.name for arm in (*OTHERS, *NAMED_ONLY))))
    _check("--precision", precisions, PRECISIONS)
    _check("--shapes", shapes, SETS)
    if savings and (arms or precisions or shapes):
        what = "--saving measures ours alone, in the preset's precision and both shapes."
        raise ConfigError(what, hint="Leave --arms, --precision and --shapes out.")
    others = tuple(ARMS[name] for name in dict.fromkeys(arms) if name != OURS.name) if arms else OTHERS
    return Protocol(
        others=others,
        precisions=tuple(dict.fromkeys(precisions)) or None,
        sets=tuple(dict.fromkeys(shapes)) or tuple(SETS),
        rounds=rounds,
        savings=tuple(savings),
    )


def _check(option: str, names: Iterable[str], known: Iterable[str]) -> None:
    allowed = tuple(known)
    if unknown := [name for name in names if name not in allowed]:
        raise ConfigError(f"{option} {unknown[0]}: there is none of that name.", hint=f"Name {', '.join(allowed)}.")
