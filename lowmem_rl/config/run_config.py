"""`RunConfig`: the whole configuration of a run, frozen. The strings under the fields are their documentation.

Types and ranges are at the fields; `rules` holds what spans several of them, so that no run starts that TRL or
Unsloth would refuse late or change silently. Limits of a model or a card are checked when that is known.
"""

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from lowmem_rl.config.field_types import (
    MAX_RANK,
    Alphas,
    Auto,
    Extra,
    Integers,
    Layers,
    Names,
    Numbers,
    Ranks,
    Rows,
    Trackers,
    Weights,
)


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelConfig(Section):
    """Which model, and the number format of its frozen weights."""

    name: str = Field("tiny", min_length=1)
    """Hub name, local directory, or `tiny` for the embedded model."""
    revision: str | None = None
    """Branch, tag or commit on the hub; the newest if unset."""
    bits: Literal["auto", 4, 16] = 4
    """Width of the frozen weights: 4 is NF4 with double quantisation (QLoRA), 16 the compute type (LoRA). `auto`: the
    one with which a step that fits is fastest, of two as fast the one that takes less memory."""
    checkpoint: Literal["plain", "dynamic"] = "plain"
    """In 4 bit: `plain` quantises exactly the named weights; `dynamic` lets Unsloth take its own upload,
    which leaves sensitive layers in 16 bit (Qwen2.5-7B: 7.5 GB instead of 5.5 GB)."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Compute type; `auto` is bfloat16 if the card has it, float16 on a T4, float32 on a CPU, which lacks float16."""


_LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class AdapterConfig(Section):
    """The adapter: the weights that learn."""

    peft_type: Literal["lora", "tinylora"] = "lora"
    """`lora`: two low-rank matrices at each adapted layer. `tinylora`: a few numbers in all, times fixed random
    matrices between the two first singular vectors of each weight; with `u` and `weight_tying` as they are 13 numbers,
    which took Qwen2.5-7B-Instruct on GSM8K from 76 to 91 % (arXiv 2602.04118). It needs a far higher learning rate."""
    rank: int = Field(16, ge=1, le=MAX_RANK)
    """Of LoRA: rank of the two low-rank matrices at each adapted layer."""
    alpha: int = Field(32, ge=1)
    """Of LoRA: the adapter's product is scaled by alpha / rank."""
    use_rslora: bool = False
    """Scale LoRA's product by alpha / sqrt(rank) instead, which keeps the learning rate at any rank (rsLoRA,
    arXiv 2312.03732)."""
    use_dora: bool = False
    """Learn a magnitude for each output of an adapted layer, too: LoRA turns the weights, the magnitude scales them
    (DoRA, arXiv 2402.09353). Unsloth has no fast path for it: the update takes more time and memory."""
    rank_pattern: Ranks = {}
    """Other ranks of LoRA, by name of module: {q_proj = 8, "layers.(26|27).mlp.down_proj" = 64}. The first pattern that
    is a module's name or the end of it counts, as in PEFT."""
    alpha_pattern: Alphas = {}
    """Other alphas of LoRA, likewise."""
    u: int = Field(13, ge=1, le=4096)
    """Of TinyLoRA: numbers that learn in each group of layers that share them."""
    weight_tying: float = Field(1.0, ge=0.0, le=1.0)
    """Of TinyLoRA: 1 lets all adapted layers share their numbers, 0 gives each its own; between, groups of neighbours.
    PEFT's own defaults are `u` 64 and no sharing."""
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Dropout on the adapter's input. Above 0 each keeps a mask of it, and row order changes the result."""
    targets: Annotated[Names, Field(min_length=1)] = _LINEAR_LAYERS
    """Names of the linear layers that get an adapter."""


class TrainableConfig(Section):
    """Which weights learn."""

    method: Literal["lora", "full"] = "lora"
    """What learns in these layers: an adapter next to frozen matrices (`adapter.*`), or the matrices themselves, whole.
    `full` works over 4-bit weights, too: the original stays, and is the KL reference. LoRA's best learning rate is
    about ten times that of whole weights (Thinking Machines, LoRA Without Regret, 2025)."""
    layers: Layers = "all"
    """The decoder layers that learn: `all`, `first:K`, `last:K`, `middle:K`, `every:N` (0, N, 2N, ...), or numbers as
    0,4,9-12; 0 is next to the embeddings. PEFT and Unsloth: `layers_to_transform`; Unsloth's `finetune_last_n_layers=5`
    is `last:5`; LLaMA-Factory's `freeze_trainable_layers=5` is `last:5` and -5 `first:5`; axolotl's
    `unfrozen_parameters` and ms-swift's `trainable_parameters_regex` name the weights of such layers."""
    modules: Names = ()
    """With `full`: names of the modules that learn in these layers, as q_proj; all matrices and norms if empty."""
    extra: Extra = ()
    """With `full`: what learns outside of the layers: `embed_tokens`, `lm_head`, `norm` (the last), `norms` (all)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """With `full`: the type of the weights that learn. bfloat16 loses updates below 2^-9 of a weight."""
    select: Literal["none", "grad_norm", "relative_grad_norm", "fisher", "weight_norm", "snr"] = "none"
    """Changes learning: which `select_top` of `layers` learn, chosen once before the first step by the highest score.
    Of rounds of sampling: `grad_norm`, of the mean gradient; `relative_grad_norm`, that over the norm of the weights
    (Auto-RGN, arXiv 2210.11466); `fisher`, the squared gradients of single prompts added up (FISH Mask, arXiv
    2111.09839). Of the weights alone: `weight_norm`, their norm (LISA, arXiv 2403.17919, shows that of each layer);
    `snr`, their singular values above noise over those within (Spectrum, arXiv 2406.06623; axolotl's
    `spectrum_top_fraction` takes a share of each kind of matrix, here a layer learns or does not). `trainable.jsonl`
    records scores and layers."""
    select_top: int = Field(4, ge=1)
    """With `select`: layers that learn."""
    select_rounds: int = Field(4, ge=1, le=1024)
    """With `select` by gradients: rounds of sampling that are scored, each as long as a step. Only their gradients are
    read; the run then asks its prompts from the first one on."""
    schedule: Literal[
        "fixed", "gradual_unfreezing", "gradual_freezing", "freezeout", "autofreeze", "lisa", "badam", "slimfit"
    ] = "fixed"
    """Changes learning: which of the chosen layers learn at a time. `gradual_unfreezing` begins with the last layer,
    one more each period (ULMFiT, arXiv 1801.06146); `gradual_freezing` with all, one fewer each, the first layer first;
    `freezeout` so with the times and rates of FreezeOut (arXiv 1706.04983): the first layer stops after half of the
    run, the last at its end, and each layer's rate falls to 0 until then, by a cosine, from the run's own. `autofreeze`
    (arXiv 2102.01386) begins with all, and after each period stops those at the bottom whose gradients have changed
    less than the layers' median (`percentile`). `lisa` draws some each period (arXiv 2403.17919); `badam` goes through
    all in turn (BAdam, arXiv 2404.02827); `slimfit` (arXiv 2305.18513) lets those matrices learn that a step moves
    most (`freeze_rate`), once each has had a turn. The authors of `autofreeze` and `slimfit` tried them in fine-tuning,
    not in RL, whose noisier gradients may freeze a layer too soon. What is `extra` always learns. `trainable.jsonl`
    records each change, with the scores."""
    every: int = Field(20, ge=1)
    """Steps of a period (LMFlow's, axolotl's and ms-swift's `lisa_*step*`, LLaMA-Factory's `badam_switch_interval`).
    SlimFit's authors choose again after each step: 1, with `state="keep"`."""
    active: int = Field(1, ge=1)
    """With `lisa` or `badam`: layers that learn at once (`lisa_activated_layers`, axolotl's `lisa_n_layers`)."""
    order: Literal["auto", "ascending", "descending", "random"] = "auto"
    """The order in which layers begin or end to learn. `auto`: descending to unfreeze, ascending to freeze, and of
    `badam` random (`badam_switch_mode`)."""
    state: Literal["reset", "keep"] = "reset"
    """The optimizer's state of a layer that stops learning: dropped, as LMFlow's LISA and BAdam do, or kept, as axolotl
    does, in host RAM."""
    percentile: float = Field(50.0, gt=0.0, le=100.0)
    """With `autofreeze`: the percentile, over the layers that still learn, of the change of their gradients between two
    periods. The first layer that reaches it learns on, and all below stop for good: a higher one freezes faster."""
    freeze_rate: float = Field(0.9, gt=0.0, lt=1.0)
    """With `slimfit`: the share of the matrices that rest at a time; an adapter's two factors count as one matrix."""


class GrpoConfig(Section):
    """Groups, lengths and the loss."""

    group_size: int = Field(8, ge=2, le=4096)
    """Completions sampled per prompt. Advantages are relative to the group, so one is never enough."""
    prompts_per_step: int = Field(8, ge=1, le=65536)
    """Distinct prompts in one optimizer step; unchanged when the group size changes."""
    steps: int = Field(200, ge=1)
    """Optimizer steps of the whole run."""
    steps_per_rollout: int = Field(1, ge=1)
    """Optimizer steps that share one round of sampling; above 1 the later ones are off-policy."""
    passes_per_rollout: int = Field(1, ge=1)
    """Times each rollout is trained on (mu in the GRPO paper, arXiv 2402.03300)."""
    max_prompt_tokens: int = Field(512, ge=1)
    """Longest prompt; longer ones are left out and counted, never cut."""
    max_completion_tokens: int = Field(512, ge=1)
    """Longest completion the sampler may produce; the KV cache and the logits grow with it."""
    loss: Literal["dapo", "dr_grpo", "grpo", "bnpo"] = "dapo"
    """How token losses are averaged: over the batch's tokens (dapo), a constant length (dr_grpo),
    each completion (grpo), the micro-batch's tokens (bnpo, whose gradient depends on memory.micro_batch)."""
    beta: float = Field(0.0, ge=0.0)
    """Weight of the KL penalty against the base model, or against `start_from`; 0 spares the reference pass."""
    epsilon: float = Field(0.2, gt=0.0)
    """Lower clip of the probability ratio; the upper one too if `epsilon_high` is unset."""
    epsilon_high: float | None = Field(None, gt=0.0)
    """Upper clip of the ratio (DAPO uses 0.28, arXiv 2503.14476)."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """What advantages are divided by: the standard deviation of the group, of the batch, or nothing."""
    baseline: Literal["mean", "median"] = "mean"
    """What is subtracted from a group's rewards. `median` is for groups below 8, where one lucky completion moves the
    mean far (MC-GRPO, arXiv 2601.22582): groups of an odd size, one more than usual, in which the completion in the
    middle has no advantage and costs no update. The paper's code divides by the median deviation, which is 0 whenever
    most rewards are equal; here `scale_rewards` says what divides."""
    pairwise: bool = False
    """Accept groups of 2 or 3, which only compare (arXiv 2510.00977). Needs `scale_rewards` batch or none
    and at least 8 prompts a step; otherwise such groups count as too small."""
    update_rows: int | None = Field(None, ge=2)
    """Changes learning: rows of each group that are trained on, those with the most spread in reward (PODS,
    arXiv 2504.13818); all if unset. Needs `beta` 0."""
    resample_rounds: int = Field(0, ge=0, le=16)
    """Changes learning: rounds in which groups without signal are replaced by groups of other prompts (dynamic
    sampling of DAPO, arXiv 2503.14476), each as expensive as its share of the first."""
    mask_truncated: bool = False
    """Leave completions that reached the length limit out of the loss."""


class RolloutConfig(Section):
    """How completions are sampled in training; evaluation has its own settings."""

    engine: Literal["auto", "lowmem", "generate", "vllm"] = "auto"
    """What samples: `lowmem` is our engine, `generate` transformers' (Unsloth's on a GPU). `auto` takes ours if it
    knows the model, agrees with its own forward and, on a GPU, is faster. vLLM is used only if named here."""
    weights: Literal["auto", "quantized", "merged"] = "auto"
    """With `lowmem`: the training weights as they are, or a copy expanded to 16 or 32 bit for the length of a rollout;
    `auto` takes the copy if it is faster and the memory plan has room for it."""
    temperature: float = Field(1.0, gt=0.0, lt=10.0)
    """Softmax temperature; 1 keeps sampling and loss on the same distribution."""
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    """Share of probability mass that is sampled from."""
    top_k: int = Field(0, ge=0)
    """Number of likeliest tokens that are sampled from; 0 means all."""
    min_p: float | None = Field(None, ge=0.0, le=1.0)
    """Tokens below this share of the likeliest one's probability are left out."""
    repetition_penalty: float = Field(1.0, gt=0.0)
    """Above 1 makes tokens that already appeared less likely."""
    stop_loops: bool = False
    """Changes learning: with `lowmem`, a completion that repeats itself for 128 tokens is cut off there."""


class OptimizerConfig(Section):
    """The optimizer and its schedule."""

    name: Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "sgd"] = "adamw_8bit"
    """AdamW, of which the 8-bit ones are bitsandbytes' and keep a quarter of the state; or `sgd`, PyTorch's without
    momentum, which has no state: its authors find it as good as AdamW in RL (arXiv 2602.07729). It needs a far higher
    rate: a step moves all weights together by at most the rate times `max_grad_norm`, where AdamW moves each by it."""
    learning_rate: float = Field(5e-6, gt=0.0, le=1.0)
    """Peak learning rate. Adapters take about ten times that of whole weights; published recipes in RL are mostly
    between 1e-5 and 4e-5, and presets say what they set."""
    beta1: float = Field(0.9, ge=0.0, lt=1.0)
    """Of AdamW: decay of the first moment."""
    beta2: float = Field(0.99, ge=0.0, lt=1.0)
    """Of AdamW: decay of the second moment."""
    weight_decay: float = Field(0.0, ge=0.0)
    """Decoupled weight decay, of matrices: not of embeddings, norms and biases."""
    max_grad_norm: float = Field(1.0, gt=0.0)
    """Gradients are scaled down to this norm."""
    schedule: Literal["constant", "linear", "cosine", "multistep"] = "constant"
    """Learning rate schedule after the warm-up."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises from 0."""
    milestones: Integers = ()
    """Steps at which `multistep` multiplies the learning rate by `decay`."""
    decay: float = Field(0.1, gt=0.0, le=1.0)
    """Factor of `multistep`."""


class MemoryConfig(Section):
    """Where memory is saved. The group size is not here: it is never cut to save memory."""

    micro_batch: Rows = 8
    """Completions of full length in one forward and backward, more if they are shorter; fewer need less memory and
    change no gradient. `auto` takes what is fastest on the card."""
    rollout_rows: Rows | None = None
    """Completions sampled together (one wave); a waiting one takes the place of each that ends. Unset means all of a
    rollout at once, `auto` what is fastest."""
    checkpointing: Literal["auto", "unsloth", "plain", "none"] = "auto"
    """Activations: recomputed and kept in host RAM (unsloth), recomputed (plain), or kept (none);
    `auto` takes the fastest that fits."""
    kept_states: Literal["auto", "off", "host", "card"] = "auto"
    """With frozen layers below those that learn (`trainable.layers` as last:5): `host` keeps in host RAM, `card` in the
    GPU's memory, what enters the lowest layer that learns while our engine samples; update and log-probs begin there.
    Each rollout it is compared with the training weights' own: all layers are computed if rounding does not explain the
    difference. `auto` keeps it if that is faster and fits."""
    max_retries: int = Field(8, ge=0)
    """Retries in a row after an out-of-memory error, each with half the rows together, before the run stops; 0 stops
    it at once."""


class TaskConfig(Section):
    """What the model is trained on."""

    name: str = Field("arithmetic", min_length=1)
    """A name of `tasks list`, or a class of your own as FILE.py:CLASS."""
    path: str | None = None
    """A local file or folder with the task's data, in its own schema; the hub if unset."""
    hub: str | None = None
    """Of task `table`: its data set on the hub, ORGANISATION/NAME."""
    subset: str | None = None
    """Of task `table`: the configuration of its data set."""
    columns: Names = ("question", "answer")
    """Of task `table`: its columns of questions, answers and, third, levels. `reward_model.ground_truth` is a part of a
    column, `instruction+input` joins two as paragraphs; the name of a conversation is a question, too."""
    splits: Names = ("train",)
    """Of task `table`: its splits to train and to evaluate on; of a single one, `eval_share` is held out."""
    answer: Literal["auto", "whole", "last_box", "after_hashes", "after_answer_is", "letter"] = "auto"
    """Of task `table`: how the answer is taken out of its column: the whole text; the last box of a solution; what
    follows its last #### or "answer is"; an option's letter; or, by auto, as each row's text shows."""
    max_bad_share: float | None = Field(None, ge=0.0, lt=1.0)
    """Share of rows that may be unusable: they are left out and `tasks check` reports them; above it the data is
    refused. If unset, the task's own; of task `table` 0.01."""
    eval_share: float | None = Field(None, gt=0.0, lt=1.0)
    """Share of rows that is held out, by a hash of the question, if the data has no held-out split; a twentieth if
    unset."""
    prompt: Literal["bare", "boxed", "think_boxed", "r1_zero", "countdown", "hashes"] = "think_boxed"
    """What the system prompt asks for: nothing, a boxed answer, thoughts and a boxed answer; thoughts and an answer
    in tags as R1-Zero or TinyZero's countdown do; an answer after ####."""
    percent: Literal["both", "number", "hundredth"] = "both"
    """What `10%` equals if the other answer has no sign: both 10 and 0.1, only the number 10, or only 0.1. Of tasks
    whose answers are verified, as is `boxes`."""
    boxes: Literal["last", "first", "all"] = "last"
    """Which of several boxes is the answer: the last, the first, or all as a list, in which equal ones count once."""
    levels: Numbers = ()
    """Levels of difficulty to take, if the task has levels; all if empty."""
    limit: int | None = Field(None, ge=1)
    """Most training examples to load."""


class CurriculumConfig(Section):
    """The order of the training examples; a run records its order in order.jsonl."""

    by: Literal["none", "level", "pass_rate", "answer_length"] = "none"
    """The measure of difficulty: none (any order, by the seed), the task's own levels, measured pass rates, or the
    length of the gold answers."""
    how: Literal["easy_to_hard", "mixed", "window"] = "easy_to_hard"
    """From easy to hard over the whole run; every stretch of the run with easy and hard ones as in the whole; or,
    by pass_rate, those that the current policy gets right in 20 to 80 % of its completions."""
    rates: str | None = None
    """File of `lowmem-rl probe` with the pass rates; `window` can start without and measures them itself."""


class EvalConfig(Section):
    """Evaluation on held-out examples: fully at both ends, cheaply and greedily in between."""

    examples: int = Field(500, ge=1)
    """Held-out examples of the full evaluation, before and after."""
    every: int = Field(50, ge=0)
    """Steps between the cheap evaluations; 0 means none."""
    quick_examples: int = Field(100, ge=1)
    """Examples of a cheap evaluation: the first ones of the full set."""
    batch: int = Field(32, ge=1)
    """Prompts that are answered together."""
    samples: int = Field(0, ge=0, le=1024)
    """Further completions sampled of each example, before and after, for pass@k and majorities."""
    tasks: Names = ()
    """Further tasks, which the run does not train on: evaluated before and after, under the run's own prompt."""


class HealthConfig(Section):
    """What happens if the audit of a run finds a problem."""

    action: Literal["warn", "stop", "roll_back"] = "warn"
    """What a critical finding does to a running run, in addition to the report: nothing; save and stop; or roll back to
    the last healthy checkpoint and continue at a third of the learning rate, at most three times, else stop there."""
    max_reward_error_share: float = Field(0.01, ge=0.0, le=1.0)
    """Share of completions on which a reward may fail before the run stops; each failure is recorded and skipped."""


class LoggingConfig(Section):
    """What a run reports, and to which trackers."""

    report_to: Trackers = ()
    """Trackers in addition to the run directory. They stay offline unless their own settings say otherwise."""
    samples_every: int = Field(10, ge=1)
    """Steps between the rollouts whose completions are saved in samples.jsonl."""
    checkpoint_every: int = Field(0, ge=0)
    """Steps between checkpoints, from which `train --resume` continues exactly; 0 makes one every ten minutes instead.
    The last step has one, and so has a run that is asked to stop."""
    keep_checkpoints: int = Field(2, ge=1)
    """Newest checkpoints that are kept; each is 1.5 (8-bit optimizer) to 3 times the adapter's size."""


class RunConfig(Section):
    """One run, resolved."""

    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of data order, sampling and initial adapter."""
    start_from: str | None = None
    """Folder of the adapter, or of the whole weights of a run, that training starts from; fresh ones at the base model
    if unset. It is then the KL reference, too. `train --from` sets it, with the model and the shape of that adapter."""
    model: ModelConfig = ModelConfig()
    adapter: AdapterConfig = AdapterConfig()
    trainable: TrainableConfig = TrainableConfig()
    grpo: GrpoConfig = GrpoConfig()
    rollout: RolloutConfig = RolloutConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    memory: MemoryConfig = MemoryConfig()
    task: TaskConfig = TaskConfig()
    curriculum: CurriculumConfig = CurriculumConfig()
    rewards: Weights = {"boxed_answer": 1.0, "think_format": 0.2}
    """Weight of each reward by name; 0 leaves it out. A gold answer pays the sum of the weights."""
    eval: EvalConfig = EvalConfig()
    health: HealthConfig = HealthConfig()
    logging: LoggingConfig = LoggingConfig()

    @property
    def rows_per_step(self) -> int:
        """Completions of one optimizer step."""
        return self.grpo.group_size * self.grpo.prompts_per_step

    @property
    def rows_per_rollout(self) -> int:
        """Completions of one rollout."""
        return self.rows_per_step * self.grpo.steps_per_rollout

    @property
    def micro_batch(self) -> int:
        """Completions in one forward and backward. Raises `ValueError` while that is "auto"."""
        return _chosen("memory.micro_batch", self.memory.micro_batch)

    @property
    def rollout_rows(self) -> int:
        """Completions sampled together. Raises `ValueError` while that is "auto"."""
        wave = self.memory.rollout_rows
        rows = self.rows_per_rollout if wave is None else _chosen("memory.rollout_rows", wave)
        return min(rows, self.rows_per_rollout)

    @property
    def rollout_weights(self) -> Literal["quantized", "merged"]:
        """Weights that our engine samples with. Raises `ValueError` while that is "auto"."""
        return _chosen("rollout.weights", self.rollout.weights)

    @property
    def checkpointing(self) -> Literal["unsloth", "plain", "none"]:
        """What happens to activations. Raises `ValueError` while that is "auto"."""
        return _chosen("memory.checkpointing", self.memory.checkpointing)

    @property
    def keeps_states(self) -> bool:
        """True if the update begins at the lowest layer that learns; False while that is "auto"."""
        return self.memory.kept_states in ("host", "card")


Value = TypeVar("Value")


def _chosen(key: str, value: Value | Auto) -> Value:
    if value == "auto":
        raise ValueError(f"{key} is still 'auto': planning.search.resolve_auto chooses it")
    return value
