"""`ModelShape`: the numbers of a causal decoder that decide its memory and time, and what follows from them."""

from dataclasses import dataclass
from typing import Literal

Quantised = Literal["no", "plain", "dynamic"]
QWEN2, QWEN3 = "Qwen2ForCausalLM", "Qwen3ForCausalLM"
LLAMA, MISTRAL = "LlamaForCausalLM", "MistralForCausalLM"
GEMMA2, GEMMA3 = "Gemma2ForCausalLM", "Gemma3ForCausalLM"
QWEN1, PHI3 = "QWenLMHeadModel", "Phi3ForCausalLM"
FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
"""Phi-3's linear layers that compute what others do in several; Unsloth gives them the adapter of any of those."""
SAMPLED_BY_US = {"llama": LLAMA, "mistral": MISTRAL, "qwen2": QWEN2, "qwen3": QWEN3}
"""Models whose layers our rollout engine computes: `model_type` and architecture of their config.json."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The numbers that decide a causal decoder's memory and time."""

    key: str
    """The requested name: hub name or directory."""
    architecture: str
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    tied_embeddings: bool
    """Input and output embeddings are one matrix."""
    attention_bias: bool
    """The query, key and value projections have a bias."""
    max_positions: int
    """Longest sequence, prompt and completion together, in tokens."""
    source: str
    qk_norm: bool = False
    """Queries and keys are normed once more in each head, as in Qwen3."""
    post_norms: bool = False
    """Attention's and the MLP's results are normed too, as in Gemma 2 and 3."""
    quantised: Quantised = "no"
    """The files hold 4-bit weights: all linear layers (plain), or some layers in 16 bit (Unsloth's dynamic)."""
    file_bytes: int | None = None
    """Bytes of all tensors in the model's files, if they are on this disk; as their headers say, not checked."""

    @property
    def is_sampled_by_us(self) -> bool:
        """Our rollout engine knows its layers; its other demands (rotary embedding, attention window) are checked when
        the model is loaded."""
        return self.architecture in SAMPLED_BY_US.values()

    @property
    def query_size(self) -> int:
        """Width of the queries of all heads (q in formulas)."""
        return self.num_heads * self.head_dim

    @property
    def key_size(self) -> int:
        """Width of the keys of all heads; the values' too (k in formulas)."""
        return self.num_kv_heads * self.head_dim

    @property
    def linear_sizes(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of each linear layer of one decoder layer."""
        hidden, mlp, queries, keys = self.hidden_size, self.intermediate_size, self.query_size, self.key_size
        return {
            "q_proj": (hidden, queries),
            "k_proj": (hidden, keys),
            "v_proj": (hidden, keys),
            "o_proj": (queries, hidden),
            "gate_proj": (hidden, mlp),
            "up_proj": (hidden, mlp),
            "down_proj": (mlp, hidden),
        }

    @property
    def layer_params(self) -> int:
        """Weights of one decoder layer's linear layers, without biases and norms."""
        hidden, heads = self.hidden_size, self.num_heads + self.num_kv_heads
        return hidden * (2 * heads * self.head_dim + 3 * self.intermediate_size)

    @property
    def largest_matrix(self) -> int:
        """Weights of the largest linear layer."""
        return self.hidden_size * max(self.query_size, self.key_size, self.intermediate_size)

    @property
    def num_params(self) -> int:
        """All weights."""
        return self.num_layers * self.layer_params + self.other_params

    @property
    def other_params(self) -> int:
        """Weights that are never quantised: embeddings, an untied head, norms, biases."""
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tied_embeddings else 2)
        return embeddings + self.hidden_size + self.num_layers * self.layer_other_params

    @property
    def layer_other_params(self) -> int:
        """Weights of one decoder layer's norms and biases."""
        norms = (4 if self.post_norms else 2) * self.hidden_size + self.qk_norm * 2 * self.head_dim
        return norms + self.attention_bias * (self.query_size + 2 * self.key_size)

    @property
    def linear_params(self) -> int:
        """Weights of all linear layers: what 4 bits are for."""
        return self.num_layers * self.layer_params

    @property
    def linear_file_bytes(self) -> int | None:
        """Bytes of the linear layers in 4-bit files; None without such files, or if their size is impossible."""
        if self.quantised == "no" or self.file_bytes is None:
            return None
        size = self.file_bytes - 2 * self.other_params
        return size if self.linear_params // 2 <= size <= 2 * self.linear_params else None

    @property
    def files_agree(self) -> bool:
        """True unless the files hold another number of weights than is counted here, in 16 or 32 bit."""
        if self.file_bytes is None:
            return True
        if self.quantised != "no":
            return self.linear_file_bytes is not None
        head = self.tied_embeddings * self.vocab_size * self.hidden_size  # some files hold a tied matrix twice
        sizes = [width * count for width in (2, 4) for count in (self.num_params, self.num_params + head)]
        return any(abs(self.file_bytes - size) <= _FILES_AGREE * size for size in sizes)

    @property
    def uncounted_params(self) -> int:
        """Weights that 16-bit files hold beyond those counted here."""
        if self.files_agree or self.quantised != "no" or self.file_bytes is None:
            return 0
        return max(self.file_bytes // 2 - self.num_params, 0)


_FILES_AGREE = 0.01
"""Share by which files may differ from the count of weights: buffers and padding."""
