"""The expanded copy of the weights computes what PEFT's own layers do, for every kind of adapter."""

from typing import Any

import pytest

pytestmark = pytest.mark.slow  # loads PEFT

TARGETS = ["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"]  # not all that are joined
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "patterns": {"rank_pattern": {"q_proj": 2, "layers.(1).mlp.down_proj": 9}, "alpha_pattern": {"v_proj": 40}},
    "dora": {"use_dora": True},
    "some dora": {"use_dora": True, "use_rslora": True, "layers_to_transform": [1], "rank_pattern": {"q_proj": 2}},
}


def moved_model(dtype: str, kind: str) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 320, "num_attention_heads": 4, "num_key_value_heads": 2}
    base = Qwen2ForCausalLM(Qwen2Config(**sizes, num_hidden_layers=2, vocab_size=64)).to(getattr(torch, dtype))
    if kind == "tinylora":
        from lowmem_rl.engine.tinylora import add_tinylora

        model = add_tinylora(base, {"u": 3, "weight_tying": 0.5, "target_modules": TARGETS, "task_type": "CAUSAL_LM"})
    else:
        model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, **KINDS[kind]))
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            noise = 0.2 * torch.randn_like(weight)
            weight.data = weight.data * (1 + noise) if "magnitude" in name else weight.data + noise
    return model.eval()


@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-5), ("bfloat16", 0.05)])
@pytest.mark.parametrize("kind", [*KINDS, "tinylora"])
def test_the_copy_computes_what_the_layers_do(kind: str, dtype: str, most: float) -> None:
    import torch

    from lowmem_rl.engine.decoder import prefill
    from lowmem_rl.engine.decoder_weights import merged

    model, ids = moved_model(dtype, kind), torch.arange(24).view(2, 12)
    with torch.inference_mode():
        theirs = model(input_ids=ids, use_cache=False).logits[:, -1].float()
        with model.disable_adapter():
            without = model(input_ids=ids, use_cache=False).logits[:, -1].float()
        ours, _ = prefill(merged(model, 12), ids, torch.full((2,), 12))
    assert (ours - theirs).abs().max() < most * theirs.abs().max()
    assert (without - theirs).abs().max() > 0.1 * theirs.abs().max()


def test_a_kind_that_only_peft_computes_is_not_taken_for_lora() -> None:
    from lowmem_rl.engine.decoder_weights import UnsupportedModel, merged

    model = moved_model("float32", "lora")
    model.get_base_model().model.layers[0].self_attn.q_proj.lora_variant["default"] = object()
    with pytest.raises(UnsupportedModel, match="only PEFT computes"):
        merged(model, 12)


def test_the_groups_of_tinylora_are_peft_s() -> None:
    from lowmem_rl.memory.adapter_tensors import _groups

    model = moved_model("float32", "tinylora")
    numbers = [weight for name, weight in model.named_parameters() if "tinylora_v" in name]
    assert len(numbers) == _groups(2 * len(TARGETS), 0.5)
