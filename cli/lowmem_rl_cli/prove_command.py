"""`lowmem-rl prove`: checks on this machine's card, and a record that can be sent in."""

import shlex
from collections.abc import Mapping, Sequence
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

from lowmem_rl.config.presets import default_preset, load_preset
from lowmem_rl.models.hardware import Card, this_machine
from lowmem_rl.stack import check_installed
from lowmem_rl_bench.prove.checks import Check, chosen
from lowmem_rl_bench.prove.processes import exit_on_signals
from lowmem_rl_bench.prove.prove import counted, exit_code, needed_card, prove
from lowmem_rl_bench.prove.record import read_record, write_record
from lowmem_rl_bench.prove.replay import check
from lowmem_rl_bench.prove.subject import Subject, weights_of
from lowmem_rl_cli import console
from lowmem_rl_cli.bench_command import check_writable

_RESULT_LINES = 6


def prove_command(
    preset: str | None, out: Path | None, only: Sequence[str], *, quick: bool, random_weights: bool, as_json: bool
) -> int:
    """Runs the checks, prints each as it ends, writes the record after each; returns the exit code."""
    machine = needed_card(this_machine())
    assert machine.card is not None
    check_installed()
    checks, name = chosen(only), load_preset(preset or default_preset(machine.card.key)).name
    subject = Subject(machine, name, weights_of(name, quick=quick, random=random_weights), quick)
    path = out or _free_path(machine.card)
    check_writable(path)
    exit_on_signals()
    say = console.say if as_json else console.show
    say(f"{machine.name}, driver {machine.driver}; {name}: {subject.model_words}")

    def listen(record: Mapping[str, Any], entry: Mapping[str, Any]) -> None:
        write_record(record, path)
        say(_line(entry))

    try:
        record = prove(subject, checks, _command(name, only, quick=quick, random=random_weights), _begin, listen)
    except BaseException:
        _remove_empty(path)
        raise
    check(read_record(path), str(path))  # what a reader would refuse is found here
    say(f"{counted(record)}; the record is {path}. CONTRIBUTING.md says how to send it in.")
    if as_json:
        console.show_json(record)
    return exit_code(record)


def _begin(check: Check) -> None:
    console.say(f"{check.name}: {check.about}, at most {check.limit_s / 60:.0f} minutes")


def _line(entry: Mapping[str, Any]) -> str:
    """Returns a check on one line; one that failed has the last lines of its process below."""
    first, *rest = entry["result"].splitlines() or [""]
    line = f"{entry['status']:<8}  {entry['name']:<15}  {entry['seconds']:>6.1f} s  {first}"
    return "\n".join([line, *(f"    {text}" for text in rest[-_RESULT_LINES:])])


def _free_path(card: Card) -> Path:
    """Returns a file of today's record that does not exist."""
    stem = f"prove-{card.key}-{date.today().isoformat()}"
    names = (f"{stem}.json" if number == 1 else f"{stem}-{number}.json" for number in count(1))
    return next(path for path in map(Path, names) if not path.exists())


def _remove_empty(path: Path) -> None:
    """Removes a file into which nothing was written."""
    if path.is_file() and not path.stat().st_size:
        path.unlink()


def _command(preset: str, only: Sequence[str], *, quick: bool, random: bool) -> str:
    """Returns the command without places of this machine."""
    flags = [*(["--quick"] if quick else []), *(["--random-weights"] if random else [])]
    names = [word for name in only for word in ("--only", name)]
    return shlex.join(["lowmem-rl", "prove", "--preset", preset, *names, *flags])
