"""Writes base and adapter as one model, in a process of its own: plain transformers and peft.

peft can merge into 4-bit weights, too, and rounds the sum to 4 bit again: on the embedded model that took away all
that was learnt. Here 4-bit weights are expanded first.
"""

from collections.abc import Mapping
from typing import Any

from lowmem_rl.export.plain_loader import BaseModelSpec, load_plain
from lowmem_rl.workers import serve


def merge(order: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the `base` with the adapter in `adapter` folded in to `folder`, as safetensors and with the tokenizer."""
    from peft import PeftModel
    from transformers import AutoTokenizer

    model = load_plain(BaseModelSpec(**order["base"]))
    was_quantised = bool(getattr(model, "is_quantized", False))
    if was_quantised:
        model = model.dequantize()
    merged = PeftModel.from_pretrained(model, order["adapter"]).merge_and_unload(safe_merge=True)
    merged.save_pretrained(order["folder"])
    AutoTokenizer.from_pretrained(order["adapter"]).save_pretrained(order["folder"])
    return {"was_quantised": was_quantised}


if __name__ == "__main__":
    serve(merge)
