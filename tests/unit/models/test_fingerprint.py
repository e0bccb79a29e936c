"""A run's model is known again by its weights, wherever they are."""

import json
import struct
from pathlib import Path

from lowmem_rl.models.fingerprint import base_digests, fingerprint


def safetensors(values: bytes) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(values)], "data_offsets": [0, len(values)]}}).encode()
    return struct.pack("<Q", len(header)) + header + values


def write(folder: Path, *shards: bytes) -> Path:
    names = [f"model-{number}.safetensors" for number in range(len(shards))]
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict(zip("ab", names, strict=True))})
    )
    for name, shard in zip(names, shards, strict=True):
        (folder / name).write_bytes(shard)
    return folder


def test_other_weights_of_one_size_differ(tmp_path: Path) -> None:
    one, same, other = (
        write(tmp_path / name, safetensors(b"1"), safetensors(last))
        for name, last in (("one", b"2"), ("same", b"2"), ("other", b"3"))
    )
    assert fingerprint(str(one)) == fingerprint(str(same)) != fingerprint(str(other))


def test_weights_that_are_still_being_fetched_have_none(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", safetensors(b"1"), safetensors(b"2"))
    (folder / "model-1.safetensors").unlink()
    assert fingerprint(str(folder)) is None
    assert fingerprint("no/such-model") is None


def test_files_that_are_not_loaded_change_nothing(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", safetensors(b"1"), safetensors(b"2"))
    before = fingerprint(str(folder))
    for name in ("adapter_model.safetensors", "pytorch_model.bin", "consolidated.safetensors"):
        (folder / name).write_bytes(safetensors(b"4"))
    assert fingerprint(str(folder)) == before is not None


def test_a_model_saved_again_has_the_same_digests_and_another_one_has_not(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", safetensors(b"1"), safetensors(b"2"))
    config, tokenizer = {"hidden_size": 8, "rope_theta": 1e4}, {"model": {"vocab": {"a": 0}}, "truncation": None}

    def digests(config: dict[str, object], tokenizer: dict[str, object]) -> dict[str, str]:
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer, indent=1))
        return base_digests(str(folder))

    own = digests(config, tokenizer)
    assert own.keys() == {"config", "tokenizer", "weights"}
    again = {"transformers_version": "6", **dict(reversed(config.items()))}
    assert digests(again, tokenizer | {"truncation": {"max_length": 9}}) == own
    assert digests(config | {"rope_theta": 1e6}, tokenizer) == own | {"config": base_digests(str(folder))["config"]}
    assert base_digests(str(folder))["config"] != own["config"]
    assert digests(config, {"model": {"vocab": {"b": 0}}})["tokenizer"] != own["tokenizer"]
    assert base_digests("no/such-model") == {}
