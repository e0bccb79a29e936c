"""Marks all tests here as slow: they load the training stack and train the embedded model."""

import gc
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module", autouse=True)
def _the_stack_is_never_collected() -> None:
    """Each full collection, at least one a training, would look at all modules again, 0.4 s, and at what earlier files
    left."""
    from lowmem_rl.engine.policy import import_unsloth

    import_unsloth()
    gc.collect()
    gc.freeze()
