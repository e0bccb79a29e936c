"""`Workload`: the settings of a run that decide its memory, and nothing else.

The loss `sft` is here so that published measurements can check the terms that both losses share.
"""

from dataclasses import dataclass, replace
from typing import Literal

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.memory.adapter_tensors import TensorSizes, frozen_numbers, learning_tensors
from lowmem_rl.memory.segments import segments_grow
from lowmem_rl.memory.trained_set import parks_masters, parks_originals, trained_set
from lowmem_rl.models.shape import ModelShape

Loss = Literal["grpo", "sft"]
Stack = Literal["unsloth", "trl"]
Method = Literal["qlora", "lora", "full"]
Checkpointing = Literal["unsloth", "plain", "none"]
Logits = Literal["chunked", "liger", "in-place", "kept", "fused", "full", "held", "shifted", "divided", "selective"]
Attention = Literal["flash", "efficient", "sdpa", "eager"]
Layer = Literal["unsloth", "plain", "fused"]
Engine = Literal["lowmem", "generate", "vllm"]

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What a step holds in memory at once. Rows count at their full length: the longest batch decides."""

    loss: Loss
    stack: Stack
    method: Method
    lora_rank: int
    lora_targets: tuple[str, ...] = LINEAR_LAYERS
    adapter_tensors: TensorSizes | None = None
    """Sizes of the adapter's tensors that ever learn; unset, two of `lora_rank` at each adapted layer."""
    frozen_adapter: int = 0
    """Numbers of the adapter, in float32, that never learn."""
    use_dora: bool = False
    """The adapter has magnitudes, which PEFT's own forward applies."""
    micro_batch: int
    """Rows in one forward and backward."""
    prompt_tokens: int
    completion_tokens: int
    group_size: int
    """Rows that share a prompt. Larger groups need no more memory: waves and micro-batches cut them."""
    rollout_rows: int
    """Rows sampled together (the wave)."""
    eval_rows: int = 0
    """Rows answered together in an evaluation; 0 without one."""
    accumulated: bool = True
    """Gradients of earlier micro-batches are held while the next one runs."""
    checkpointing: Checkpointing
    optimizer: str
    rollout_engine: Engine
    """What samples; `lowmem` is ours."""
    rollout_weights: Literal["quantized", "merged"] = "quantized"
    """Our engine computes with the model's own modules, or with a copy that is expanded for each rollout."""
    kept_share: float = 0.0
    """Share of the linear layers' numbers whose expanded copy is kept between rollouts."""
    filters_words: bool = False
    """Sampling drops unlikely tokens (top-k, top-p, min-p, a repetition penalty), which sorts the scores."""
    standby: bool
    """vLLM gives its KV cache back while the model learns."""
    vllm_utilisation: float | None = None
    """Share of the card that vLLM takes; unset, its default in this stack."""
    reference_pass: bool
    old_logprob_pass: bool
    grouped_rows: int = 0
    """Rows of a whole rollout, whose log-probs Unsloth takes in one pass with shared prompts if there is room."""
    dynamic_checkpoint: bool
    """Unsloth's own 4-bit upload, which leaves sensitive layers in 16 bit."""
    double_quantisation: bool = True
    """The 4-bit blocks' constants are themselves quantised to 8 bit."""
    upcast_remainder: bool = False
    """PEFT's `prepare_model_for_kbit_training` has turned what is not quantised into float32."""
    residual_bytes: int | None = None
    """Width of the residual stream if it is not the compute type's."""
    weight_bytes: int | None = None
    """Width of the weights if they are not in the compute type: autocast then keeps copies."""
    adapter_bytes: int | None = None
    """Width of an adapter's weight if it is not the stack's default."""
    rope_positions: int = 0
    """Positions of a table of cosines and sines that each layer has of its own, as in Unsloth's models of 2024."""
    tied_head_in_files: bool = False
    """The files hold the head, too, though it is the embeddings: its block is free once they are one."""
    keeps_4bit_inputs: bool = False
    """Each 4-bit layer keeps its input for the backward pass, as bitsandbytes did before 0.44."""
    compute_bytes: int
    """Width of a number in the compute type."""
    wide_on_cpu: bool = False
    """On a CPU the compute type is float32, as for auto and float16."""
    lora_dropout: float = 0.0
    attention: Attention = "flash"
    """`efficient` is PyTorch's kernel for cards without flash; `sdpa` with a padding mask copies keys and values for
    every query head; `eager` holds all scores at once."""
    layer: Layer = "unsloth"
    """Whose kernels a decoder layer runs: Unsloth's, plain transformers, or those with fused norms and RoPE."""
    logits: Logits = "chunked"
    """How the loss computes logits: in chunks, with Liger's GRPO loss, in chunks that are kept, whole in a kernel (in
    place or not), whole in plain PyTorch; that while the program holds the model's output; that with a shifted copy, as
    transformers did before 4.50; or whole in TRL's GRPO before 1.13, divided by the temperature into a copy, or in
    place, as from 1.0 to 1.9 (`selective`)."""
    tiles_logits: bool = False
    """Unsloth's chunks are tiles of the vocabulary for any number of rows, as on cards of up to 24.5 GiB."""
    trained_layers: int | None = None
    """Layers with weights that learn; all if unset."""
    backward_layers: int | None = None
    """Layers that the backward pass goes through, from the lowest that learns; as many as learn if unset."""
    whole_params: int = 0
    """Numbers that learn whole, each next to its frozen original; nothing else learns then."""
    whole_bytes: int = 4
    """Width of such a number."""
    keeps_start: bool = False
    """A frozen copy of what learns is the KL reference: the run starts from an adapter."""
    gradient_share: float = 1.0
    """Share of what learns that learns at once, and so has a gradient."""
    state_share: float = 1.0
    """Share of what learns that has an optimizer state on the card."""
    parked_state_share: float = 0.0
    """Share of it whose states are in host RAM, because it rests; on a CPU they are all in one memory."""
    resting_share: float = 0.0
    """Share of it that has learned and rests when the run ends."""
    parks_masters: bool = False
    """The float32 weights of layers that rest are in host RAM, and 16 bit compute."""
    parks_originals: bool = False
    """The 16-bit originals of layers that have learned are in host RAM."""
    sums_gradients: bool = False
    """Gradients are added up over many steps, to choose which layers continue (`trainable.schedule=autofreeze`)."""
    compares_weights: bool = False
    """What learns is copied before some steps, to measure how far they move it (`trainable.schedule=slimfit`)."""
    kept_rows: int = 0
    """Rows of a rollout of which the states that enter the lowest learning layer are kept (`engine.kept_states`)."""
    keeps_on_card: bool = False
    """They are kept on the card; else in host RAM."""
    expandable_segments: bool
    """PyTorch's allocator grows its segments instead of collecting fixed ones."""
    lengths_vary: bool = False
    """Micro-batches differ in length: without growing segments the pool keeps blocks of every size. The lengths here
    are the longest."""

    @property
    def row_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def tokens(self) -> int:
        """Tokens in one forward and backward, padding counted."""
        return self.micro_batch * self.row_tokens

    @property
    def scored_tokens(self) -> int:
        """Tokens with logits: completions in GRPO, everything in SFT."""
        return self.tokens if self.loss == "sft" else self.micro_batch * self.completion_tokens


def on_plain_trl(workload: Workload) -> Workload:
    """Returns the same run on TRL, PEFT and bitsandbytes alone, as their defaults run it.

    No offloading, plain layers, keys copied for every query head because of the padding mask, fixed segments.
    """
    return replace(
        workload,
        stack="trl",
        layer="plain",
        attention="sdpa",
        checkpointing="none" if workload.checkpointing == "none" else "plain",
        grouped_rows=0,
        dynamic_checkpoint=False,
        rollout_engine="vllm" if workload.rollout_engine == "vllm" else "generate",
        rollout_weights="quantized",
        standby=False,
        expandable_segments=False,
    )


def engine_of(config: RunConfig, shape: ModelShape) -> Engine:
    """Returns what samples: ours for every model that it knows unless another is named, else `generate`.

    On a GPU a run with engine `auto` may still find `generate` faster when it starts.
    """
    if config.rollout.engine in ("generate", "vllm"):
        return config.rollout.engine
    return "lowmem" if shape.is_sampled_by_us else "generate"


def can_keep_states(config: RunConfig, shape: ModelShape) -> bool:
    """Returns whether our engine samples, and frozen layers are below the lowest that learns in any period."""
    backward = trained_set(config, shape).backward_layers
    return engine_of(config, shape) == "lowmem" and 0 < backward < shape.num_layers


def compute_bytes_of(config: RunConfig) -> int:
    """Returns the width of a number in the compute type that the configuration names."""
    return 4 if config.model.dtype == "float32" else 2


def workload_of(config: RunConfig, shape: ModelShape, step: int | None = None) -> Workload:
    """Returns what decides a run's memory on the default stack, or that of one step of its schedule.

    Raises `ValueError` while a setting is "auto", `ConfigError` for layers that the model lacks.
    """
    adapter, trainable, trained = config.adapter, config.trainable, trained_set(config, shape, step)
    return replace(
        _rows_and_passes(config, shape),
        # TinyLoRA keeps no input of a layer, as a frozen one does.
        lora_targets=adapter.targets if (trainable.method, adapter.peft_type) == ("lora", "lora") else (),
        adapter_tensors=learning_tensors(config, shape),
        frozen_adapter=frozen_numbers(config, shape),
        use_dora=adapter.use_dora,
        lora_dropout=adapter.dropout,
        keeps_start=config.start_from is not None,
        trained_layers=trained.layers,
        backward_layers=trained.backward_layers,
        whole_params=trained.whole_params,
        whole_bytes=4 if trainable.dtype == "float32" else 2,
        gradient_share=trained.share_at_once,
        state_share=trained.share_at_once,
        parked_state_share=trained.share_at_rest if trainable.state == "keep" else 0.0,
        resting_share=trained.share_at_rest,
        parks_masters=parks_masters(config),
        parks_originals=parks_originals(config),
        sums_gradients=trainable.schedule == "autofreeze",
        compares_weights=trainable.schedule == "slimfit",
    )


def _rows_and_passes(config: RunConfig, shape: ModelShape) -> Workload:
    """Returns what a step samples and computes, before it is known which weights learn."""
    grpo, rollout, engine = config.grpo, config.rollout, engine_of(config, shape)
    uses_vllm, keeps_states = engine == "vllm", config.keeps_states and engine == "lowmem"
    return Workload(
        loss="grpo",
        stack="unsloth",
        method="qlora" if config.model.bits == 4 else "lora",
        lora_rank=config.adapter.rank,
        micro_batch=config.micro_batch,
        prompt_tokens=grpo.max_prompt_tokens,
        completion_tokens=grpo.max_completion_tokens,
        group_size=grpo.group_size,
        rollout_rows=config.rollout_rows,
        eval_rows=config.eval.batch,
        checkpointing=config.checkpointing,
        optimizer=config.optimizer.name,
        rollout_engine=engine,
        rollout_weights=config.rollout_weights,
        filters_words=bool(rollout.top_k or rollout.min_p) or rollout.top_p < 1.0 or rollout.repetition_penalty != 1.0,
        standby=uses_vllm,  # the engine switches it on with vLLM
        reference_pass=grpo.beta > 0,
        # With vLLM alone none are needed: the correction that compares them is off.
        old_logprob_pass=grpo.steps_per_rollout * grpo.passes_per_rollout > 1,
        grouped_rows=0 if uses_vllm else config.rows_per_rollout,
        kept_rows=config.rows_per_rollout * (1 + grpo.resample_rounds) if keeps_states else 0,
        keeps_on_card=config.memory.kept_states == "card",
        dynamic_checkpoint=config.model.checkpoint == "dynamic",
        compute_bytes=compute_bytes_of(config),
        wide_on_cpu=config.model.dtype != "bfloat16",
        expandable_segments=segments_grow(uses_vllm=uses_vllm),
    )
