"""Merging, and the receiver's side of the proof, in a process without Unsloth: it rewrites transformers and peft."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lowmem_rl.engine.weights_files import LearnedWeights, is_whole, put_weights, read_weights
from lowmem_rl.export.model_answers import Answer, ExportPrompts, answer_greedily, read_again
from lowmem_rl.workers import serve


@dataclass(frozen=True, slots=True)
class BaseModelSpec:
    """The base of an adapter. `quantization` is bitsandbytes' configuration for weights that are not quantised yet.

    `dtype` is "auto" for the one in which the weights are stored.
    """

    name: str
    revision: str | None
    quantization: dict[str, Any] | None
    dtype: str


def merge(request: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the `base` with what `adapter` has learned to `folder`, as safetensors and with the tokenizer.

    peft can merge into 4-bit weights, too, and rounds the sum to 4 bit again: on the embedded model that lost all that
    was learned. Here 4-bit weights are expanded first.
    """
    from peft import PeftModel
    from transformers import AutoTokenizer

    model = _load(BaseModelSpec(**request["base"]))
    was_quantised = bool(getattr(model, "is_quantized", False))
    if was_quantised:
        model = model.dequantize()
    if is_whole(Path(request["adapter"])):
        merged = put_weights(model, LearnedWeights(Path(request["adapter"])))
    else:
        merged = PeftModel.from_pretrained(model, request["adapter"]).merge_and_unload(safe_merge=True)
    # Weights that were stored in 4 bit would be packed again under their stored names, which transformers cannot do.
    merged.save_pretrained(request["folder"], save_original_format=not was_quantised)
    AutoTokenizer.from_pretrained(request["adapter"]).save_pretrained(request["folder"])
    return {"was_quantised": was_quantised}


def answer_reloaded(request: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the exported model in `folder` answers to `messages`, and how it reads the `trained` answers.

    A request with a `base` is for an adapter on it, or for whole weights in it.
    """
    from peft import PeftModel
    from transformers import AutoTokenizer

    folder, base, asked = request["folder"], request["base"], request["asked"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [tokenizer.apply_chat_template(m, add_generation_prompt=True, tokenize=False) for m in request["messages"]]
    prompts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    model = _load(BaseModelSpec(**base) if base else BaseModelSpec(folder, None, None, "auto"))
    if base and request["is_whole"]:
        put_weights(model, read_weights(Path(folder)))
    elif base:
        model = _keep_exact(PeftModel.from_pretrained(model, folder).eval())
    answers = list(answer_greedily(model, ExportPrompts(**asked | {"prompts": prompts})))
    spoken = [answer.ids[: -1 if answer.ids[-1] in asked["stop_ids"] else None] for answer in answers]
    trained = zip(asked["prompts"], (Answer(**answer) for answer in request["trained"]), strict=True)
    return {
        "prompts": prompts,
        "answers": [asdict(answer) for answer in answers],
        # The assistant's whole turn: what the template opened with, then the tokens before the stop.
        "texts": [request["prefill"] + tokenizer.decode(ids, skip_special_tokens=True) for ids in spoken],
        "read_own": [read_again(model, *pair) for pair in zip(prompts, answers, strict=True)],
        "read_trained": [read_again(model, *pair) for pair in trained],
    }


def _load(base: BaseModelSpec) -> Any:
    """Loads a causal language model ready to answer, on the GPU if there is one."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = base.dtype if base.dtype == "auto" else getattr(torch, base.dtype)
    options = {"quantization_config": BitsAndBytesConfig.from_dict(base.quantization)} if base.quantization else {}
    if torch.cuda.is_available():
        options["device_map"] = {"": 0}
    model = AutoModelForCausalLM.from_pretrained(base.name, revision=base.revision, dtype=dtype, **options)
    return _keep_exact(model.eval())


def _keep_exact(model: Any) -> Any:
    """Keeps 4-bit layers from bitsandbytes' bfloat16 kernel for AVX-512 CPUs, which is for inference only.

    It moves log-probabilities by 0.008 nats, rounding by 1e-6: it would hide a fault of that size.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.train()
    return model


_JOBS = {"merge": merge, "answer_reloaded": answer_reloaded}

if __name__ == "__main__":
    serve(lambda request: _JOBS[request["job"]](request))
