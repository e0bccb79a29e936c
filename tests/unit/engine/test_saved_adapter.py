"""Reading what a folder of whole weights is, which may be a stranger's."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.config.run_config import ModelConfig
from lowmem_rl.engine.adapter import CONFIG, WEIGHTS, check_base, read_adapter
from lowmem_rl.engine.policy import TRAINABLE
from lowmem_rl.errors import RunDirError
from lowmem_rl.models.fingerprint import base_digests

WRITTEN = {"peft_type": "LORA", "base_model_name_or_path": "tiny", "r": 8, "lora_alpha": 8}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Whole weights as PEFT saves them, still without the list of what has learned."""
    (tmp_path / CONFIG).write_text(json.dumps(WRITTEN | {"target_modules": "dummy-target-modules"}))
    (tmp_path / WEIGHTS).touch()
    return tmp_path


def as_text(text: str) -> Callable[[Path], Any]:
    return lambda path: path.write_text(text)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(4 * 2**30)


HOSTILE: dict[str, Callable[[Path], Any]] = {
    "missing": lambda path: None,
    "a list": as_text("[]"),
    "brackets": as_text("[" * 100_000),
    "other types": as_text('{"method": ["full"], "layers": {"a": 1}}'),
    "another key": as_text('{"method": "full", "rm": 1}'),
    "digests in a list": as_text('{"method": "full", "base_digests": ["a"]}'),
    "a number as digest": as_text('{"method": "full", "base_digests": {"config": 1}}'),
    "no layers": as_text('{"method": "full", "layers": "first:0"}'),
    "a long list": as_text(json.dumps({"method": "full", "layers": "0," * 10_000 + "0"})),
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "4 GiB": sparse,
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_a_list_that_cannot_be_used_is_refused_in_a_line(folder: Path, make: Callable[[Path], Any]) -> None:
    make(folder / TRAINABLE)
    with pytest.raises(RunDirError) as caught:
        read_adapter(folder)
    assert len(str(caught.value)) < 400
    assert caught.value.hint


def test_what_has_learned_whole_is_read(folder: Path) -> None:
    (folder / TRAINABLE).write_text('{"method": "full", "layers": "last:1", "extra": ["norm"]}')
    found = read_adapter(folder)
    assert (found.base, found.trainable.layers, found.trainable.extra) == ("tiny", "last:1", ("norm",))
    assert found.base_digests == {}


def test_a_stranger_s_digests_name_no_part_that_is_not_there(folder: Path) -> None:
    digests = {"config": "1" * 32, "\x1b[31m": "2", "tokenizer": base_digests("tiny")["tokenizer"]}
    (folder / TRAINABLE).write_text(json.dumps({"method": "full", "base_digests": digests}))
    with pytest.raises(RunDirError, match="than tiny: its config differs") as caught:
        check_base(folder, ModelConfig(name="tiny"))
    assert "\x1b" not in str(caught.value)
