"""Layers that learn alone on the card, adapters or whole: they alone move, and the backward pass ends there."""

from pathlib import Path

import pytest

from lowmem_rl.storage.run_dir import RunDir, read_json
from tests.rehearsal.killed import adapter_of, killed_and_resumed, rows_of
from tests.rehearsal.learning_layers import Looked, look, words
from tests.rehearsal.stage import Stage

WHOLE = ("trainable.method=full", "optimizer.name=adamw_8bit")


def looked(stage: Stage, folder: Path, *settings: str) -> Looked:
    found: Looked = stage.call(look, settings, str(folder / "run"))
    assert found.code == 0
    assert found.rows[0]["grad_norm"] > 0
    assert abs(found.rows[0]["kl"]) < 1e-3
    return found


def test_the_last_layer_learns_whole_over_4_bit(a6000: Stage, tmp_path: Path) -> None:
    settings = ("trainable.layers=last:1", 'trainable.extra=["norm"]', "memory.checkpointing=unsloth")
    found = looked(a6000, tmp_path, *WHOLE, *settings)
    assert found.moved == found.learning
    assert len(found.moved) == 12 + 1
    assert all("modules_to_save" in name for name in found.moved)
    assert found.recomputed == (0, 0, 2)
    assert found.norms == 2 * 3


CASES = {
    "first, none": (("trainable.layers=first:1", 'trainable.extra=["norm"]', "memory.checkpointing=none"), 13, 0, 7),
    "last, none": (("trainable.layers=last:1", "memory.checkpointing=none"), 12, 0, 3),
    "first, unsloth": (("trainable.layers=first:1", "memory.checkpointing=unsloth"), 12, 3, 7),
    "all, plain": (("trainable.layers=all", 'trainable.extra=["norm"]', "memory.checkpointing=plain"), 37, 3, 7),
    "final norm": (("trainable.layers=none", 'trainable.extra=["norm"]', "memory.checkpointing=unsloth"), 1, 0, 1),
    "norms": (("trainable.layers=last:1", 'trainable.extra=["norms"]', "memory.checkpointing=unsloth"), 17, 3, 7),
    "embeddings": (
        ("trainable.layers=none", 'trainable.extra=["embed_tokens"]', "memory.checkpointing=unsloth"),
        1,
        3,
        7,
    ),
}
"""Settings; weights that learn; layers that the backward pass computes again; norms that it comes through."""


@pytest.mark.long
@pytest.mark.parametrize(("bits", "optimizer"), [(4, "adamw_8bit"), (16, "adamw_torch_fused")])
@pytest.mark.parametrize("case", CASES)
def test_what_is_to_learn_moves(a6000: Stage, case: str, bits: int, optimizer: str, tmp_path: Path) -> None:
    settings, weights, recomputed, norms = CASES[case]
    more = ("trainable.method=full", f"model.bits={bits}", f"optimizer.name={optimizer}")
    found = looked(a6000, tmp_path, *settings, *more)
    assert found.moved == found.learning
    assert len(found.moved) == weights
    assert found.recomputed == (0,) * (3 - recomputed) + (2,) * recomputed
    assert found.norms == 2 * norms


@pytest.mark.long
@pytest.mark.parametrize(
    ("layers", "checkpointing", "recomputed", "norms"),
    [
        ("last:1", "unsloth", (0, 0, 2), 3),
        ("last:1", "none", (0, 0, 0), 3),
        ("first:1", "unsloth", (2, 2, 2), 7),
        ("1", "unsloth", (0, 2, 2), 5),
    ],
)
def test_adapters_in_one_layer(
    a6000: Stage, layers: str, checkpointing: str, recomputed: tuple[int, ...], norms: int, tmp_path: Path
) -> None:
    found = looked(a6000, tmp_path, f"trainable.layers={layers}", f"memory.checkpointing={checkpointing}")
    assert found.moved == {name for name in found.learning if "lora_B" in name}  # A's gradient is 0 as long as B is
    assert len(found.moved) == 7
    assert (found.recomputed, found.norms) == (recomputed, 2 * norms)


@pytest.mark.long
@pytest.mark.parametrize("sampling", ["rollout.weights=quantized", "rollout.weights=merged", "rollout.engine=generate"])
def test_whole_layers_are_sampled(a6000: Stage, sampling: str, tmp_path: Path) -> None:
    more = () if "generate" in sampling else ("rollout.engine=lowmem",)
    found = looked(a6000, tmp_path, *WHOLE, "trainable.layers=last:1", sampling, *more)
    assert ("sampler_fell_back" in found.rows[0]) is False
    if more:
        assert found.rows[0]["rollout_gap_nats"] < 0.05


KEPT = ('trainable.extra=["norm"]', "logging.checkpoint_every=1", "logging.samples_every=1")


@pytest.mark.long
@pytest.mark.parametrize(
    ("layers", "bits", "optimizer"),
    [("last:1", 4, "adamw_8bit"), ("first:1", 16, "adamw_torch_fused"), ("first:1", 4, "paged_adamw_8bit")],
)
def test_a_killed_run_resumes_bit_for_bit_and_is_exported(
    a6000: Stage, layers: str, bits: int, optimizer: str, tmp_path: Path
) -> None:
    more = (f"trainable.layers={layers}", f"model.bits={bits}", f"optimizer.name={optimizer}", "trainable.method=full")
    command, whole = words(*KEPT, *more, steps=3), RunDir(tmp_path / "whole")
    ended = a6000.lowmem("train", *command, "--out", str(whole.path))
    assert ended.code == 0, ended.output
    resumed = killed_and_resumed(a6000, command, tmp_path / "killed")
    assert rows_of(resumed) == rows_of(whole)
    assert adapter_of(resumed) == adapter_of(whole)
    exported = a6000.lowmem("export", str(whole.path), "--to", "merged", "--examples", "8")
    assert exported.code == 0, exported.output
    tokens = read_json(whole.path / "export" / "merged" / "proof.json")["tokens"]
    assert tokens["same"] + len(tokens["ties"]) == tokens["items"] == 8
