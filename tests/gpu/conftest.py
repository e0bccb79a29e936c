"""The card of this machine, for tests marked `gpu`."""

import pytest

from lowmem_rl.models.hardware import Machine, this_machine


@pytest.fixture(scope="session")
def machine() -> Machine:
    """This machine; skips the test if it shows no card."""
    found = this_machine()
    if found.card is None:
        pytest.skip("this machine shows no GPU: tests of a real card need one")
    return found
