"""The backward pass ends at the first layer that learns, under every kind of checkpointing, with the same gradient."""

from typing import Any

import pytest

from lowmem_rl.trl_adapter.gradient_start import start_gradient_at

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
    start_gradient_at(model.get_base_model(), FIRST)
    found, forwards = gradient_and_forwards(model)
    assert torch.equal(found, wanted)
    assert set(list(forwards.values())[:FIRST]) == {1}
    assert set(list(forwards.values())[FIRST:]) == {1 if kind == "none" else 2}


def test_without_it_reentrant_checkpointing_recomputes_frozen_layers() -> None:
    model = adapted_model()
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": True})
    assert set(gradient_and_forwards(model)[1].values()) == {2}


def test_without_gradients_nothing_changes() -> None:
    import torch

    ids = torch.arange(20)[None]
    model = adapted_model().eval()
    with torch.no_grad():
        before = model(input_ids=ids).logits
        start_gradient_at(model.get_base_model(), FIRST)
        assert torch.equal(model(input_ids=ids).logits, before)
