"""Kinds of adapters on the card: each starts at the base model, is sampled as it is trained, and learns."""

from pathlib import Path

import pytest

from tests.rehearsal.learning_layers import Looked, look
from tests.rehearsal.stage import Stage

DORA, TINY = ("adapter.use_dora=true",), ("adapter.peft_type=tinylora", "optimizer.learning_rate=0.02")
PATTERN = ("adapter.use_rslora=true", 'adapter.rank_pattern={q_proj=3, "mlp.down_proj"=24}')
OURS = ("rollout.engine=lowmem", "rollout.weights=merged")


def looked(stage: Stage, folder: Path, *settings: str) -> Looked:
    found: Looked = stage.call(look, settings, str(folder / "run"))
    assert found.code == 0
    assert found.rows[0]["grad_norm"] > 0
    assert abs(found.rows[0]["kl"]) < 1e-3
    return found


def test_the_magnitudes_of_dora_learn_over_4_bit(a6000: Stage, tmp_path: Path) -> None:
    found = looked(a6000, tmp_path, *DORA, *OURS, "memory.checkpointing=unsloth", "trainable.layers=last:1")
    assert found.rows[0]["rollout_gap_nats"] < 0.05
    assert found.moved == {name for name in found.learning if "lora_A" not in name}  # its gradient is 0 as B is
    assert len(found.moved) == 14
    assert found.recomputed == (0, 0, 2)


def test_the_numbers_of_tinylora_learn_over_4_bit(a6000: Stage, tmp_path: Path) -> None:
    found = looked(a6000, tmp_path, *TINY, *OURS, "memory.checkpointing=unsloth", "trainable.layers=last:1")
    assert found.rows[0]["rollout_gap_nats"] < 0.05
    assert found.moved == found.learning
    assert len(found.moved) == 1
    assert found.recomputed == (0, 0, 2)


@pytest.mark.long
@pytest.mark.parametrize(
    "sampling", [OURS, ("rollout.engine=lowmem", "rollout.weights=quantized"), ("rollout.engine=generate",)]
)
@pytest.mark.parametrize("checkpointing", ["none", "unsloth"])
@pytest.mark.parametrize("bits", [4, 16])
@pytest.mark.parametrize("kind", [DORA, TINY, PATTERN])
def test_each_kind_is_sampled(
    a6000: Stage, kind: tuple[str, ...], bits: int, checkpointing: str, sampling: tuple[str, ...], tmp_path: Path
) -> None:
    more = (f"model.bits={bits}", f"memory.checkpointing={checkpointing}")
    found = looked(a6000, tmp_path, *kind, *sampling, *more)
    if "rollout.engine=lowmem" in sampling:
        assert found.rows[0]["rollout_gap_nats"] < 0.05
    assert found.moved
    assert found.moved <= found.learning
