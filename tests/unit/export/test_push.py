"""Pushing to a hub that is a server on this machine, through the hub's own client, in a process of its own."""

import os
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_stand_in import TOKEN, StandIn, running

PUSH = """
import sys
from pathlib import Path
from lowmem_rl.errors import LowMemError
from lowmem_rl.export.push import find_target
try:
    print(find_target(sys.argv[1], public="--public" in sys.argv).push(Path(sys.argv[2])))
except LowMemError as error:
    print(error, error.hint, sep="\\n", file=sys.stderr)
    sys.exit(error.exit_code)
"""


@pytest.fixture
def hub() -> Iterator[StandIn]:
    with running() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "export"
    made.mkdir()
    (made / "README.md").write_text("# card\n")
    (made / "model.safetensors").write_bytes(bytes(range(256)) * 9)
    return made


def push(hub: StandIn, folder: Path, repo: str, *options: str, token: str | None = TOKEN) -> tuple[int, str, str]:
    environment = {key: value for key, value in os.environ.items() if key != "HF_TOKEN"} | hub.environment(token)
    command = [sys.executable, "-c", PUSH, repo, str(folder), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_a_folder_is_pushed_whole_into_a_private_repository(hub, folder) -> None:
    code, stdout, stderr = push(hub, folder, "me/model")
    assert (code, stdout) == (0, f"{hub.address}/me/model\n"), stderr
    (repo,) = hub.repos.values()
    assert repo["private"] is True
    assert b64decode(repo["files"]["README.md"]) == b"# card\n"
    assert repo["files"]["model.safetensors"] == bytes(range(256)) * 9
    assert TOKEN not in stdout + stderr


@pytest.mark.parametrize(("token", "what"), [(None, "There is no token"), ("hf_wrong", "refuses the token")])
def test_a_token_that_is_missing_or_refused_ends_with_two_lines(hub, folder, token, what) -> None:
    code, _, stderr = push(hub, folder, "me/model", token=token)
    assert code == 3
    assert what in stderr
    assert len(stderr.strip().splitlines()) == 2
    assert "hf_wrong" not in stderr
    assert hub.repos == {}
    assert not any(asked.startswith("POST") for asked in hub.asked)


@pytest.mark.slow
def test_a_public_repository_takes_an_export_only_if_that_is_asked_for(hub, folder) -> None:
    hub.repos["me/open"] = {"private": False, "files": {}}
    code, _, stderr = push(hub, folder, "me/open")
    assert (code, hub.repos["me/open"]["files"]) == (2, {})
    assert "--public" in stderr
    assert push(hub, folder, "me/open", "--public")[0] == 0
    assert sorted(hub.repos["me/open"]["files"]) == ["README.md", "model.safetensors"]


@pytest.mark.slow
def test_what_is_no_repository_is_refused_before_the_hub_is_asked(hub, folder) -> None:
    for name in ("model", "a/b/c", "../x", "me/", "me/mo del"):
        assert push(hub, folder, name)[0] == 2
    assert hub.asked == []
