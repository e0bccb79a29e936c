"""How sure a difference is: against numbers worked out by hand."""

from math import inf

import pytest

from lowmem_rl.health.significance import MOST_CONFIDENT, confidence


def test_confidence_grows_with_the_evidence_and_stays_below_certainty():
    assert confidence(0.0, 1.0) == 0.5
    assert confidence(-3.0, 0.8) == pytest.approx(0.7989, abs=1e-4)
    assert confidence(inf, 1.0) == MOST_CONFIDENT
