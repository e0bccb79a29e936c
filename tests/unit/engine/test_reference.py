"""The reference of a run that starts from an adapter: exchanged numbers, for every kind of what learns."""

from typing import Any

import pytest

from tests.unit.engine.test_adapter_kinds import KINDS, moved_model

pytestmark = pytest.mark.slow  # loads PEFT


def whole_model() -> Any:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from lowmem_rl.config.run_config import TrainableConfig
    from lowmem_rl.engine.whole_weights import train_whole

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    base = Qwen2ForCausalLM(Qwen2Config(**sizes, num_hidden_layers=2, vocab_size=64, tie_word_embeddings=True))
    model = train_whole(base, [1], TrainableConfig(method="full", layers="1", extra=("embed_tokens",)))
    _move(model)
    return model.eval()


def _move(model: Any) -> None:
    import torch

    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.2 * torch.randn_like(weight))


@pytest.mark.parametrize("kind", [*KINDS, "tinylora", "whole"])
def test_the_start_computes_bit_for_bit_whatever_is_learned_after_it(kind: str) -> None:
    import torch

    from lowmem_rl.engine.reference import become_start, keep_as_reference

    model = whole_model() if kind == "whole" else moved_model("float32", kind)
    ids = torch.arange(24).view(2, 12)

    def logits() -> Any:
        return model(input_ids=ids, use_cache=False).logits

    start, pointers = logits(), [weight.data_ptr() for weight in model.parameters()]
    keep_as_reference(model)
    _move(model)
    moved = logits()
    assert not torch.equal(moved, start)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode(), model.disable_adapter():
            assert torch.equal(logits(), start)
    with pytest.raises(KeyError), model.disable_adapter():
        raise KeyError  # an error in the pass leaves the policy's own weights
    assert torch.equal(logits(), moved)
    assert [weight.data_ptr() for weight in model.parameters()] == pointers
    assert all(weight.requires_grad for name, weight in model.named_parameters() if "lora_" in name)
    logits().sum().backward()
    become_start(model)
    assert torch.equal(logits(), start)
    with model.disable_adapter():
        _move(model)
    assert torch.equal(logits(), start)
