"""A model that was trained on the card is handed on with its proof."""

from pathlib import Path

import pytest

from tests.rehearsal.stage import Stage
from tests.rehearsal.test_card import SHORT

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def run(t4: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    ended = t4.lowmem("train", *SHORT, "--set", "optimizer.name=adamw_8bit", "--out", str(out))
    assert ended.code == 0, ended.output
    return out


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_an_export_answers_like_the_trained_model(t4: Stage, run: Path, form: str) -> None:
    ended = t4.lowmem("export", str(run), "--to", form, "--examples", "8")
    assert ended.code == 0, ended.output
    assert "8 of 8 greedy answers" in ended.output
