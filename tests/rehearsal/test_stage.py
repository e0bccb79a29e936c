"""A server that ends is reported, and leaves nothing."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rehearsal.server import MATH
from tests.rehearsal.stage import PID, RehearsalError, Stage

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="servers run on Linux alone")]


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage(MATH)
    stage.wait_until_ready()
    yield stage
    stage.close()
    assert not stage.folder.exists()


def test_a_server_that_has_ended_is_named_at_once_and_not_started_again(stage: Stage) -> None:
    assert stage.call("os:getpid") != os.getpid()
    os.kill(int((stage.folder / PID).read_text()), signal.SIGKILL)
    time.sleep(0.5)
    for _ in range(2):
        with pytest.raises(RehearsalError, match="has ended"):
            stage.call("os:getpid")


def test_one_that_is_there_is_shared_and_not_started_twice(stage: Stage) -> None:
    pid = (stage.folder / PID).read_text()
    other = Stage(MATH, folder=stage.folder, owner=os.getpid())
    assert other.call("os:getppid") == stage.call("os:getppid") == int(pid)
    other.close()
    assert Path(stage.address).exists()
