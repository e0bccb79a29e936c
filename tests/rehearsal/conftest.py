"""Simulated cards, one server each, for all tests of a session."""

from collections.abc import Iterator

import pytest

from tests.rehearsal.preloaded_python import shared_stage
from tests.rehearsal.server import CPU, MATH
from tests.rehearsal.stage import Stage, unsupported


@pytest.fixture(scope="session")
def stages(request: pytest.FixtureRequest) -> Iterator[dict[str, Stage]]:
    """The servers; those that the session's tests name start side by side, others when they are asked."""
    if reason := unsupported():
        pytest.skip(reason)
    found = {"a6000": Stage("a6000"), "t4": Stage("t4"), CPU: shared_stage(CPU)}
    shared_stage(MATH).start()
    for name in {name for item in request.session.items for name in getattr(item, "fixturenames", ())} & found.keys():
        found[name].start()
    yield found
    for stage in found.values():
        stage.close()


@pytest.fixture(scope="session")
def a6000(stages: dict[str, Stage]) -> Stage:
    """An RTX A6000: Ampere, bfloat16."""
    return stages["a6000"]


@pytest.fixture(scope="session")
def t4(stages: dict[str, Stage]) -> Stage:
    """A Tesla T4: Turing, float16 with a GradScaler."""
    return stages["t4"]


@pytest.fixture(scope="session")
def cpu(stages: dict[str, Stage]) -> Stage:
    """Unsloth's CPU backend, to compare with."""
    return stages[CPU]
