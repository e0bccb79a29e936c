"""Whole weights as files: names, shards, their index, and what a model takes."""

from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from lowmem_rl.engine import weights_files
from lowmem_rl.engine.weights_files import INDEX, LearnedWeights, put_weights, read_weights, write_weights
from lowmem_rl.storage.run_dir import read_json


def saved(folder: Path, **weights: Any) -> Path:
    content = {f"base_model.model.{name.replace('__', '.')}": weight for name, weight in weights.items()}
    save_file(content, folder / "adapter_model.safetensors")
    return folder


def test_names_have_no_prefix_and_a_tied_head_is_its_embedding(tmp_path: Path) -> None:
    import torch

    matrix = torch.rand(4, 4)
    folder = saved(tmp_path, model__embed_tokens__weight=matrix, lm_head__weight=matrix.clone())
    assert LearnedWeights(folder).keys() == {"model.embed_tokens.weight"}
    saved(tmp_path, model__embed_tokens__weight=matrix, lm_head__weight=matrix + 1)
    assert LearnedWeights(folder).keys() == {"model.embed_tokens.weight", "lm_head.weight"}


@pytest.mark.parametrize(("most_bytes", "files"), [(10**9, 1), (64, 3)])
def test_shards_are_small_and_the_index_names_each_weight(
    most_bytes: int, files: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(weights_files, "_SHARD_BYTES", most_bytes)
    weights = {f"model.layers.{layer}.mlp.up_proj.weight": torch.rand(4, 8) for layer in (3, 4, 9)}
    write_weights(weights, tmp_path, torch.bfloat16, {"base": "some/model", "revision": None, "bits": 4})
    names = [f"model-{number:05d}-of-{files:05d}.safetensors" for number in range(1, files + 1)]
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == names
    index = read_json(tmp_path / INDEX)
    assert (index["metadata"]["total_size"], set(index["weight_map"])) == (3 * 64, set(weights))
    for name, file in index["weight_map"].items():
        with safe_open(tmp_path / file, "pt") as opened:
            assert opened.get_tensor(name).equal(weights[name].bfloat16())
    assert read_weights(tmp_path).keys() == weights.keys()
    about = {"base": "some/model", "revision": None, "bits": 4, "layers": "3-4,9"}
    assert read_json(tmp_path / "trainable.json") == about


def test_a_weight_that_the_base_has_not_is_refused() -> None:
    import torch

    model = torch.nn.Linear(2, 2)
    put_weights(model, {"weight": torch.ones(2, 2)})
    assert model.weight.equal(torch.ones(2, 2))
    with pytest.raises(RuntimeError, match=r"has no up_proj\.weight"):
        put_weights(model, {"up_proj.weight": torch.ones(2, 2)})
