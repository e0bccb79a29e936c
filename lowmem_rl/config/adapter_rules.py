"""Which settings of an adapter go together: each kind of adapter reads its own, and vLLM takes plain LoRA alone."""

from collections.abc import Iterator

from lowmem_rl.config.run_config import AdapterConfig, RunConfig

_OF_LORA = ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern")
_OF_TINYLORA = ("u", "weight_tying")


def broken_adapter_rules(config: RunConfig) -> Iterator[tuple[str, str, str]]:
    """Yields the key to change, what is wrong, and the fix, of every rule that the adapter breaks."""
    adapter = config.adapter
    if config.trainable.method == "full":
        for key in _changed(adapter, ("peft_type", *_OF_LORA, *_OF_TINYLORA)):
            fix = 'leave it out, or set trainable.method="lora"'
            yield f"adapter.{key}", "it has no effect on whole weights", fix
        return
    unread = _OF_LORA if adapter.peft_type == "tinylora" else _OF_TINYLORA
    for key in _changed(adapter, unread):
        other = "lora" if adapter.peft_type == "tinylora" else "tinylora"
        what = f'it has no effect with adapter.peft_type="{adapter.peft_type}"'
        yield f"adapter.{key}", what, f"leave it out, or set adapter.peft_type={other}"
    if adapter.peft_type == "tinylora" and config.trainable.schedule != "fixed":
        what = "layers share the numbers of TinyLoRA: they cannot learn in turns"
        yield "trainable.schedule", what, "leave it fixed, or set adapter.peft_type=lora"
    for key in () if config.trainable.select == "none" else _naming_layers(adapter):
        what = f'a pattern names layers, and trainable.select="{config.trainable.select}" chooses them'
        yield f"adapter.{key}", what, "name modules alone, as down_proj, or leave trainable.select out"
    if config.rollout.engine == "vllm":
        for key in _changed(adapter, ("peft_type", "use_dora", "rank_pattern", "alpha_pattern")):
            what = "Unsloth hands vLLM plain LoRA matrices of one rank and scale"
            yield f"adapter.{key}", what, 'leave it out, or leave rollout.engine at "auto"'


def _changed(adapter: AdapterConfig, keys: tuple[str, ...]) -> list[str]:
    return [key for key in keys if getattr(adapter, key) != AdapterConfig.model_fields[key].default]


def _naming_layers(adapter: AdapterConfig) -> list[str]:
    """Returns the tables with a pattern that names a layer: by a number, which no module's own name has."""
    tables = {"rank_pattern": adapter.rank_pattern, "alpha_pattern": adapter.alpha_pattern}
    return [key for key, table in tables.items() if any(map(str.isdigit, "".join(table)))]
