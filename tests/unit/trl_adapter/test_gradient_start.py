"""The backward pass ends at the first layer that learns, under every kind of checkpointing, with the same gradient."""

from typing import Any

import pytest

from lowmem_rl.trl_adapter.gradient_start import shorten_backward

pytestmark = pytest.mark.slow  # loads PEFT

DEPTH, FIRST = 6, 4


def adapted_model() -> Any:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    base = Qwen2ForCausalLM(Qwen2Config(**sizes, num_hidden_layers=DEPTH, vocab_size=64))
    targets, layers = ["q_proj", "down_proj"], list(range(FIRST, DEPTH))
    model = get_peft_model(base, LoraConfig(r=4, target_modules=targets, layers_to_transform=layers))
    for number, (name, weight) in enumerate(model.named_parameters()):
        if "lora_B" in name:
            torch.manual_seed(number)
            weight.data = 0.02 * torch.randn_like(weight)
    return model.train()


def gradient_and_forwards(model: Any) -> tuple[Any, dict[int, int]]:
    import torch

    forwards = dict.fromkeys(range(DEPTH), 0)

    def count(number: int) -> Any:
        return lambda *_: forwards.update({number: forwards[number] + 1})

    for number, layer in enumerate(model.get_base_model().model.layers):
        layer.self_attn.register_forward_hook(count(number))
    ids = torch.arange(40).view(2, 20) % 64
    (model(input_ids=ids, use_cache=False).logits.float() ** 2).mean().backward()
    found = [weight.grad.flatten() for weight in model.parameters() if weight.requires_grad]
    return torch.cat(found), forwards


@pytest.mark.parametrize("kind", ["none", "reentrant", "not reentrant"])
def test_frozen_layers_below_run_once_and_the_gradient_stays(kind: str) -> None:
    import torch

    wanted, _ = gradient_and_forwards(adapted_model())
    model = adapted_model()
    model.enable_input_require_grads()  # as TRL does for an adapter
    if kind != "none":
        model.gradient_checkpointing_enable({"use_reentrant": kind == "reentrant"})
    shorten_backward(model.get_base_model())
    found, forwards = gradient_and_forwards(model)
    assert torch.equal(found, wanted)
    assert set(list(forwards.values())[:FIRST]) == {1}
    assert set(list(forwards.values())[FIRST:]) == {1 if kind == "none" else 2}


def test_without_it_reentrant_checkpointing_recomputes_frozen_layers() -> None:
    model = adapted_model()
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": True})
    assert set(gradient_and_forwards(model)[1].values()) == {2}


@pytest.mark.parametrize(
    ("extra", "recomputed"), [("embed_tokens", 0), ("layers.2.input_layernorm", 2), ("norm", FIRST)]
)
def test_it_ends_at_whatever_learns_lowest(extra: str, recomputed: int) -> None:
    found = []
    for is_shortened in (False, True):
        model = adapted_model()
        model.get_base_model().model.get_submodule(extra).requires_grad_(True)
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": True})
        if is_shortened:
            shorten_backward(model.get_base_model())
        found.append(gradient_and_forwards(model))
    assert found[1][0].equal(found[0][0])
    assert list(found[1][1].values()) == [1] * recomputed + [2] * (DEPTH - recomputed)


def test_layers_below_keep_nothing_even_if_their_input_needs_a_gradient() -> None:
    import torch

    model = adapted_model()
    shorten_backward(model.get_base_model())
    kept: list[bool] = []
    layer = model.get_base_model().model.layers[FIRST - 1]
    layer.register_forward_hook(lambda module, inputs, output: kept.append(output.requires_grad))
    embedded = model.get_input_embeddings()(torch.arange(20)[None]).detach().requires_grad_()
    model(inputs_embeds=embedded, use_cache=False)
    assert kept == [False]


def test_above_all_layers_nothing_is_recomputed() -> None:
    model = adapted_model().requires_grad_(False)
    model.get_base_model().model.norm.requires_grad_(True)
    model.gradient_checkpointing_enable({"use_reentrant": True})
    shorten_backward(model.get_base_model())
    gradient, forwards = gradient_and_forwards(model)
    assert gradient.any()
    assert set(forwards.values()) == {1}


def test_without_gradients_nothing_changes() -> None:
    import torch

    ids = torch.arange(20)[None]
    model = adapted_model().eval()
    with torch.no_grad():
        before = model(input_ids=ids).logits
        shorten_backward(model.get_base_model())
        assert torch.equal(model(input_ids=ids).logits, before)


@pytest.mark.parametrize("kind", ["none", "reentrant", "not reentrant"])
def test_it_follows_a_set_that_changes(kind: str) -> None:
    import torch

    def only_last_learns(model: Any) -> Any:
        for name, weight in model.named_parameters():
            weight.requires_grad_("lora_" in name and f".layers.{DEPTH - 1}." in name)
        return model

    model = adapted_model()
    if kind != "none":
        model.gradient_checkpointing_enable({"use_reentrant": kind == "reentrant"})
    shorten_backward(model.get_base_model(), changes=True)
    found, forwards = gradient_and_forwards(only_last_learns(model))
    assert torch.equal(found, gradient_and_forwards(only_last_learns(adapted_model()))[0])
    assert [*forwards.values()] == [1] * (DEPTH - 1) + [1 if kind == "none" else 2]


def test_embeddings_below_frozen_layers_have_their_whole_gradient() -> None:
    import torch

    def gradient(model: Any) -> Any:
        model.get_base_model().model.embed_tokens.weight.requires_grad_(True)
        return gradient_and_forwards(model)[0]

    model = adapted_model()
    shorten_backward(model.get_base_model(), changes=True)
    assert torch.equal(gradient(model), gradient(adapted_model()))
