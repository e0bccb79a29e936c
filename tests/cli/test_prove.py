"""`prove` on a machine without a card, and records in `presets`."""

import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.models.hardware import find_card
from tests.record_maker import changed, make_record, write

PROGRAM = "import sys; from lowmem_rl_cli.app import main; print(main(['prove']), 'torch' in sys.modules)"


def test_without_a_card_it_ends_at_once_and_loads_no_torch(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=tmp_path)
    assert done.stdout.split() == ["3", "False"]
    error, hint = done.stderr.splitlines()
    assert error == "error: `prove` needs a GPU, and this machine shows none."
    assert "doctor" in hint
    assert list(tmp_path.iterdir()) == []


def test_a_record_is_a_new_file_and_its_command_has_no_place_of_this_machine(tmp_path: Path) -> None:
    from lowmem_rl_cli import prove_command

    first = prove_command._free_path(find_card("t4"))
    first.touch()
    second = prove_command._free_path(find_card("t4"))
    assert (first.name, second.name) == (f"prove-t4-{date.today()}.json", f"prove-t4-{date.today()}-2.json")
    prove_command._remove_empty(first)
    assert not first.exists()
    command = prove_command._command("tiny-cpu", ["memory", "a b"], quick=True, random=True)
    assert command == "lowmem-rl prove --preset tiny-cpu --only memory --only 'a b' --quick --random-weights"


def test_a_failed_check_shows_the_end_of_its_log(tmp_path: Path) -> None:
    from lowmem_rl_cli.prove_command import _line

    entry = {"status": "failed", "name": "memory", "seconds": 3.25, "result": "it ended\n" + "\n".join("abcdefgh")}
    assert _line(entry).splitlines() == [
        f"failed    {'memory':<15}     3.2 s  it ended",
        *(f"    {x}" for x in "cdefgh"),
    ]
    assert _line(entry | {"result": ""}).rstrip().endswith("s")


def listed(cli_here: Any, *words: str) -> dict[str, list[str]]:
    outcome = cli_here("presets", "list", *words)
    assert outcome.code == 0
    return {line.split()[0]: line.split() for line in outcome.stdout.splitlines()[1:]}


def test_presets_say_honestly_that_no_card_was_measured(cli_here: Any) -> None:
    assert all(words[5:7] == ["none", "yet"] for words in listed(cli_here).values())
    shown = cli_here("presets", "show", "qwen1.5b-t4").stdout
    assert "# measured: none yet; `lowmem-rl prove --preset qwen1.5b-t4`" in shown


def test_presets_show_what_a_record_measured_by_card(cli_here: Any, tmp_path: Path) -> None:
    file = write(make_record(), tmp_path / "record.json")
    found = listed(cli_here, "--records", str(file))
    assert found["qwen1.5b-t4"][5] == "t4"
    assert found["qwen7b-t4"][5:7] == ["none", "yet"]
    shown = cli_here("presets", "show", "qwen1.5b-t4", "--records", str(tmp_path)).stdout
    (line,) = [line for line in shown.splitlines() if line.startswith("# measured on")]
    assert "t4 (driver 580.95.05, 2026-11-30, lowmem-rl 0.2.0 at ababababab)" in line
    assert "10.00 s a step, Unsloth's defaults 20.50 s" in line


def test_a_record_of_the_embedded_model_is_none_of_the_preset(cli_here: Any, tmp_path: Path) -> None:
    file = write(make_record(weights="embedded"), tmp_path / "record.json")
    assert listed(cli_here, "--records", str(file))["qwen1.5b-t4"][5:7] == ["none", "yet"]
    shown = cli_here("presets", "show", "qwen1.5b-t4", "--records", str(file)).stdout
    assert "the embedded model in its place" in shown


def test_json_gets_the_records_as_a_further_key(cli_here: Any, tmp_path: Path) -> None:
    file = write(make_record(), tmp_path / "record.json")
    rows = json.loads(cli_here("presets", "list", "--json", "--records", str(file)).stdout)
    records = {row["name"]: row["records"] for row in rows}
    assert [found["card"] for found in records.pop("qwen1.5b-t4")] == ["t4"]
    assert set(map(len, records.values())) == {0}
    assert all(row["measured"] is None for row in rows)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda record: changed(record, "machine.gpu", "Tesla T4", reseal=False), "changed after it was written"),
        (lambda record: changed(record, "measured.step.ratio.median", 9.0), "not that of the rounds"),
        (lambda record: changed(record, "measured.preset", "mine"), "cannot be replayed"),
        (lambda record: {}, "is refused"),
    ],
    ids=["changed", "another ratio", "foreign preset", "no record"],
)
def test_a_spoiled_record_is_refused_in_two_lines(cli_here: Any, spoil: Any, why: str, tmp_path: Path) -> None:
    file = write(spoil(make_record()), tmp_path / "record.json")
    outcome = cli_here("presets", "list", "--records", str(file))
    assert (outcome.code, outcome.stdout) == (2, "")
    error, hint = outcome.stderr.splitlines()
    assert why in error
    assert hint.startswith("hint: ")


@pytest.mark.parametrize("place", ["no-such.json", "."])
def test_records_that_are_not_there_are_named(cli_here: Any, place: str) -> None:
    outcome = cli_here("presets", "list", "--records", place)
    assert outcome.code == 2
    assert len(outcome.stderr.splitlines()) == 2
