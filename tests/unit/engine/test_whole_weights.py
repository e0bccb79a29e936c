"""Whole weights that learn over frozen ones: which they are, their gradients, and the base model below them."""

from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.config.run_config import TrainableConfig
from lowmem_rl.errors import ConfigError, RunDirError

pytestmark = pytest.mark.slow  # loads PEFT

IDS = [[3, 9, 4, 27, 16, 33, 5, 8]]


@pytest.fixture
def make() -> Any:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    def make(bits: int = 16, **changes: Any) -> Any:
        torch.manual_seed(0)
        sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
        model = Qwen2ForCausalLM(Qwen2Config(**sizes | {"num_hidden_layers": 3, "vocab_size": 64} | changes))
        return in_4_bit(model) if bits == 4 else model

    return make


def in_4_bit(model: Any) -> Any:
    import bitsandbytes as bnb
    import torch

    for layer in model.model.layers:
        for parent in (layer.self_attn, layer.mlp):
            for name, linear in list(parent.named_children()):
                if isinstance(linear, torch.nn.Linear):
                    new = bnb.nn.Linear4bit(
                        linear.in_features,
                        linear.out_features,
                        linear.bias is not None,
                        torch.float32,
                        quant_type="nf4",
                    )
                    new.load_state_dict(linear.state_dict())
                    setattr(parent, name, new.to("cpu"))
    return model


def whole(model: Any, layers: list[int], **settings: Any) -> Any:
    from lowmem_rl.engine.whole_weights import train_whole

    return train_whole(model, layers, TrainableConfig(method="full", **settings))


def logits(model: Any) -> Any:
    import torch

    return model(input_ids=torch.tensor(IDS), use_cache=False).logits


def learning(model: Any) -> set[str]:
    prefix, part = "base_model.model.", ".modules_to_save.default"
    return {n.removeprefix(prefix).replace(part, "") for n, weight in model.named_parameters() if weight.requires_grad}


def test_gradients_are_those_of_the_same_weights_unfrozen(make) -> None:
    import torch

    plain, model = make(), whole(make(), [1])
    plain.requires_grad_(False)
    plain.model.layers[1].requires_grad_(True)
    for each in (plain, model):
        (logits(each) ** 2).mean().backward()
    wanted = {name: weight.grad for name, weight in plain.named_parameters() if weight.requires_grad}
    found = {
        name.removeprefix("base_model.model.").replace(".modules_to_save.default", ""): weight.grad
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("bits", [4, 16])
def test_it_starts_as_the_base_model_and_gives_it_back(make, bits: int) -> None:
    import torch

    base, model = make(bits), whole(make(bits), [0, 2])
    wanted = logits(base)
    assert torch.allclose(logits(model), wanted, atol=1e-6)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.1)
    assert (logits(model) - wanted).abs().max() > 0.01
    with model.disable_adapter():
        assert torch.equal(logits(model), wanted)
    from lowmem_rl.engine.adapter import become_base

    become_base(model)
    assert torch.allclose(logits(model), wanted, atol=1e-6)


def test_adapters_off_and_on_leave_frozen_copies_frozen(make) -> None:
    model = whole(make(), [1, 2])
    for name, weight in model.named_parameters():
        if ".layers.1." in name:
            weight.requires_grad_(False)
    before = learning(model)
    with model.disable_adapter():
        pass
    assert learning(model) == before
    assert not any(".layers.1." in name for name in before)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"modules": ["q_proj"]}, {"model.layers.1.self_attn.q_proj.weight", "model.layers.1.self_attn.q_proj.bias"}),
        ({"extra": ["norm"]}, {"model.norm.weight"}),
        (
            {"extra": ["norms"]},
            {f"model.layers.{i}.{n}_layernorm.weight" for i in range(3) for n in ("input", "post_attention")}
            | {"model.norm.weight"},
        ),
        ({"extra": ["embed_tokens"]}, {"model.embed_tokens.weight"}),
        ({"extra": ["lm_head"]}, {"lm_head.weight"}),
    ],
)
def test_what_is_named_learns(make, settings: dict[str, Any], wanted: set[str]) -> None:
    layers = [1] if "modules" in settings else []
    assert learning(whole(make(tie_word_embeddings=False), layers, **settings)) == wanted


def test_tied_embeddings_learn_as_one_matrix(make) -> None:
    model = whole(make(tie_word_embeddings=True), [], extra=["embed_tokens"])
    assert learning(model) == {"model.embed_tokens.weight"}
    base = model.get_base_model()
    assert base.lm_head.weight is base.model.embed_tokens.weight
    (logits(model) ** 2).mean().backward()
    plain = make(tie_word_embeddings=True)
    (logits(plain) ** 2).mean().backward()
    assert base.lm_head.weight.grad.equal(plain.lm_head.weight.grad)


def test_a_norm_that_learns_in_float32_leaves_the_residual_narrow(make) -> None:
    import torch

    model = whole(make().to(torch.bfloat16), [0, 1, 2], extra=["norm"])
    assert {weight.dtype for weight in model.parameters() if weight.requires_grad} == {torch.float32}
    assert logits(model).dtype == torch.bfloat16


@pytest.mark.parametrize(("saved", "loaded"), [([1], [0, 1]), ([0, 1], [1]), ([0], [1])])
def test_whole_weights_of_other_layers_do_not_fit(make, saved: list[int], loaded: list[int], tmp_path: Path) -> None:
    from lowmem_rl.engine.adapter import load_adapter

    whole(make(), saved).save_pretrained(tmp_path)
    load_adapter(whole(make(), saved), tmp_path)
    with pytest.raises(RunDirError, match=r"does not fit its base model: .*layers\.[01]\."):
        load_adapter(whole(make(), loaded), tmp_path)


def test_a_module_that_no_layer_has_is_refused(make) -> None:
    with pytest.raises(ConfigError, match="no layer that learns has a module 'w_proj'"):
        whole(make(), [1], modules=["w_proj"])


def test_a_head_of_its_own_next_to_tied_embeddings_is_refused(make) -> None:
    with pytest.raises(ConfigError, match="no lm_head of its own"):
        whole(make(tie_word_embeddings=True), [1], extra=["lm_head"])
