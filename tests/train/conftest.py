"""Marks all tests here as slow: they load the training stack and train the embedded model."""

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rehearsal.preloaded_python import preloaded_python


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _the_stack_is_never_collected() -> None:
    """Each full collection, at least one a training, would look at all modules again: 0.4 s."""
    from lowmem_rl.engine.policy import import_unsloth

    import_unsloth()
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def _preloaded_python() -> Iterator[Path]:
    if sys.platform != "linux":
        yield Path(sys.executable)
        return
    with preloaded_python() as python:
        yield python


@pytest.fixture(scope="module")
def preloaded(_preloaded_python: Path) -> Iterator[Path]:
    """Lets commands and workers have the stack loaded already, from a module's first test that asks; on Linux alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(_preloaded_python))
        yield _preloaded_python
