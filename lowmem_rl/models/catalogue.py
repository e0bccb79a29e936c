"""Known models, so that a run can be planned before a byte is fetched.

A row's `source` is the evidence for its numbers: config.json itself; a public copy or transcription of it
(repository@commit/path, compared in November 2026); or an explicit note that it is less than that. What a transcription
leaves out (tied embeddings, the width of a head) follows from the exact count of weights, which the tests check.
"""

import re
from dataclasses import replace
from functools import cache

from lowmem_rl.models.shape import GEMMA2, GEMMA3, LLAMA, MISTRAL, PHI3, QWEN1, QWEN2, QWEN3, ModelShape, Quantised

_HUB = "config.json on the hub"

_COPY = "config.json as copied in "
_KVFIT = _COPY + "debaditc/kvfit@bd4ccab/src/kvfit/data/models.json"
_LLM_PROF = _COPY + "citsjtu2020/LLM-Prof@8434c8d/sglang/Model_Config.md"
_LLM_ENGINE = _COPY + "scaleapi/llm-engine@28edd64/model-engine/tests/unit/domain/test_llm_use_cases.py"
_ONNX_TOOL = _COPY + "ThanatosShinji/onnx-tool@c58db71/onnx_tool/llm.py"
_THUNDER_BLOCKS = _COPY + "kevinstephano/thunder_model_blocks@"

_LLAMA_3 = _THUNDER_BLOCKS + "4b180c4/thunder_model_blocks/llama/llama_3_8B_Instruct_config.py"
_NEKO_LORA = _COPY + "mephisto1484/Neko-LoRA-Build-Your-AI-Catgirl@1d5d023/Qwen3-1.7B/config.json"
_WARPIO = _COPY + "akougkas/warpio-cli@e84bac5/warpio-docs/ai-docs/model_cards/qwen3:4b.md"
_NANOQUANT = _COPY + "swayam8624/nanoquant-private@0619c48/TinyLlama-1.1B-Chat-v1.0/config.json"

_TRANSCRIPT = "config.json as transcribed in "
_LITGPT = _TRANSCRIPT + "Lightning-AI/litgpt@0006c97/litgpt/config.py"
_LLM_CLIENT = _TRANSCRIPT + "ShelbyJenkins/llm_client@82edb3e/llm_models/src/llm/local/gguf/generated/preset_models.rs"

_QWEN2 = "Qwen2.5-7B's shape, as public code that cites its config.json repeats it; the file not read"
_QWEN3_BASE = "the chat model's shape, Qwen3-8B-Base's longest sequence; config.json not read"
_TULU = "Llama-3.1-8B's shape, vocabulary from the parameter total alone; config.json not read"
_NEMO_BASE = _THUNDER_BLOCKS + (
    "a23dd8f/thunder_model_blocks/mistral/mistral_config.py, but for its longest sequence: 128000 there, here as in "
    "the later Mistral-Nemo-Instruct-2407"
)
_SMALL_2409 = _LLM_CLIENT + ", but for its longest sequence: 131072 there, here as on the card since its correction"
_R1_15B = "config.json's values as a program that reads it reports them; untied, as the count of weights shows"
_R1_BASE = "the shape of its base, which DeepSeek-R1's card names; config.json not read"
_CODER = "its modules as PyTorch prints them, in public code; the file not read"
_CODER_67B = "Llama-2-7b's shape with the smaller sibling's vocabulary, held by the count of weights; the file not read"
_QWEN1 = "config.json as public code that cites it repeats it; the MLP's halves counted together there"
_QWEN1_COUNT = "its smaller siblings' form, held by the count of weights; the file not read"
_QWEN15 = "config.json as two public transcriptions that cite it agree, held by the count of weights; the file not read"
_QWEN15_32B_COUNT = (
    "config.json as that of two public transcriptions has it which the count of weights confirms; the file not read"
)
_PHI3_128K = "Phi-3-mini-4k's shape, held by the count of weights, its longest sequence by its name; the file not read"
_YI = "Llama-2-7b's shape with four heads of keys, held by the count of weights; the file not read"
_MAGISTRAL = f"text part of its sibling Mistral-Small-3.2-24B-Instruct-2506, whose {_KVFIT}; its own not read"


def _decoder(
    architecture: str,
    layers: int,
    hidden: int,
    mlp: int,
    heads: tuple[int, int],
    vocab: int,
    *,
    tied: bool = False,
    head: int | None = None,
) -> ModelShape:
    """Returns a shape without a name; `heads` are those of queries and of keys, `head` their width if it is not the
    hidden size over the query heads."""
    return ModelShape(
        key="",
        architecture=architecture,
        num_layers=layers,
        hidden_size=hidden,
        intermediate_size=mlp,
        num_heads=heads[0],
        num_kv_heads=heads[1],
        head_dim=head or hidden // heads[0],
        vocab_size=vocab,
        tied_embeddings=tied,
        attention_bias=architecture in (QWEN1, QWEN2),
        max_positions=1,
        source="",
        qk_norm=architecture in (QWEN3, GEMMA3),
        post_norms=architecture in (GEMMA2, GEMMA3),
    )


_QWEN25_05B = _decoder(QWEN2, 24, 896, 4864, (14, 2), 151_936, tied=True)
_QWEN25_15B = _decoder(QWEN2, 28, 1536, 8960, (12, 2), 151_936, tied=True)
_QWEN25_3B = _decoder(QWEN2, 36, 2048, 11_008, (16, 2), 151_936, tied=True)
_QWEN25_7B = _decoder(QWEN2, 28, 3584, 18_944, (28, 4), 152_064)
_QWEN25_14B = _decoder(QWEN2, 48, 5120, 13_824, (40, 8), 152_064)
_QWEN25_32B = _decoder(QWEN2, 64, 5120, 27_648, (40, 8), 152_064)
_LLAMA3_8B = _decoder(LLAMA, 32, 4096, 14_336, (32, 8), 128_256)
_TULU3_8B = _decoder(LLAMA, 32, 4096, 14_336, (32, 8), 128_264)
_LLAMA32_1B = _decoder(LLAMA, 16, 2048, 8192, (32, 8), 128_256, tied=True)
_LLAMA32_3B = _decoder(LLAMA, 28, 3072, 8192, (24, 8), 128_256, tied=True)
_DEEPSEEK_MATH_7B = _decoder(LLAMA, 30, 4096, 11_008, (32, 32), 102_400)
_QWEN3_06B = _decoder(QWEN3, 28, 1024, 3072, (16, 8), 151_936, tied=True, head=128)
_QWEN3_17B = _decoder(QWEN3, 28, 2048, 6144, (16, 8), 151_936, tied=True)
_QWEN3_4B = _decoder(QWEN3, 36, 2560, 9728, (32, 8), 151_936, tied=True, head=128)
_QWEN3_8B = _decoder(QWEN3, 36, 4096, 12_288, (32, 8), 151_936)
_QWEN3_14B = _decoder(QWEN3, 40, 5120, 17_408, (40, 8), 151_936)
_QWEN3_32B = _decoder(QWEN3, 64, 5120, 25_600, (64, 8), 151_936, head=128)
_TINY_LLAMA = _decoder(LLAMA, 22, 2048, 5632, (32, 4), 32_000)
_LLAMA2_7B = _decoder(LLAMA, 32, 4096, 11_008, (32, 32), 32_000)
_LLAMA2_13B = _decoder(LLAMA, 40, 5120, 13_824, (40, 40), 32_000)
_LLAMA2_70B = _decoder(LLAMA, 80, 8192, 28_672, (64, 8), 32_000)
_LLAMA3_70B = _decoder(LLAMA, 80, 8192, 28_672, (64, 8), 128_256)
_MISTRAL_7B_V01 = _decoder(MISTRAL, 32, 4096, 14_336, (32, 8), 32_000)
_MISTRAL_7B_V03 = _decoder(MISTRAL, 32, 4096, 14_336, (32, 8), 32_768)
_MISTRAL_NEMO = _decoder(MISTRAL, 40, 5120, 14_336, (32, 8), 131_072, head=128)
_MISTRAL_SMALL_2409 = _decoder(MISTRAL, 56, 6144, 16_384, (48, 8), 32_768)
_MISTRAL_SMALL_2501 = _decoder(MISTRAL, 40, 5120, 32_768, (32, 8), 131_072, head=128)
_PHI3_MINI = _decoder(PHI3, 32, 3072, 8192, (32, 32), 32_064)
_PHI3_MEDIUM = _decoder(PHI3, 40, 5120, 17_920, (40, 10), 32_064)
_PHI4 = _decoder(PHI3, 40, 5120, 17_920, (40, 10), 100_352)
_PHI4_MINI = _decoder(PHI3, 32, 3072, 8192, (24, 8), 200_064, tied=True)

_QWEN1_18B = _decoder(QWEN1, 24, 2048, 5504, (16, 16), 151_936)
_QWEN1_7B = _decoder(QWEN1, 32, 4096, 11_008, (32, 32), 151_936)
_QWEN1_14B = _decoder(QWEN1, 40, 5120, 13_696, (40, 40), 152_064)
_QWEN15_05B = _decoder(QWEN2, 24, 1024, 2816, (16, 16), 151_936, tied=True)
_QWEN15_18B = _decoder(QWEN2, 24, 2048, 5504, (16, 16), 151_936)
_QWEN15_4B = _decoder(QWEN2, 40, 2560, 6912, (20, 20), 151_936)
_QWEN15_7B = _decoder(QWEN2, 32, 4096, 11_008, (32, 32), 151_936)
_QWEN15_14B = _decoder(QWEN2, 40, 5120, 13_696, (40, 40), 152_064)
_QWEN15_32B = _decoder(QWEN2, 64, 5120, 27_392, (40, 8), 152_064)
_R1_QWEN_15B = _decoder(QWEN2, 28, 1536, 8960, (12, 2), 151_936)
_SMOLLM2_135M = _decoder(LLAMA, 30, 576, 1536, (9, 3), 49_152, tied=True)
_SMOLLM2_360M = _decoder(LLAMA, 32, 960, 2560, (15, 5), 49_152, tied=True)
_SMOLLM2_17B = _decoder(LLAMA, 24, 2048, 8192, (32, 32), 49_152, tied=True)
_DEEPSEEK_CODER_13B = _decoder(LLAMA, 24, 2048, 5504, (16, 16), 32_256)
_DEEPSEEK_CODER_67B = _decoder(LLAMA, 32, 4096, 11_008, (32, 32), 32_256)
_YI_6B = _decoder(LLAMA, 32, 4096, 11_008, (32, 4), 64_000)
_GEMMA2_2B = _decoder(GEMMA2, 26, 2304, 9216, (8, 4), 256_000, tied=True, head=256)
_GEMMA2_9B = _decoder(GEMMA2, 42, 3584, 14_336, (16, 8), 256_000, tied=True, head=256)
_GEMMA2_27B = _decoder(GEMMA2, 46, 4608, 36_864, (32, 16), 256_000, tied=True, head=128)
_GEMMA3_1B = _decoder(GEMMA3, 26, 1152, 6912, (4, 1), 262_144, tied=True, head=256)

# Name, shape, longest sequence, evidence.
_ROWS: tuple[tuple[str, ModelShape, int, str], ...] = (
    ("Qwen/Qwen2.5-0.5B", _QWEN25_05B, 32_768, _HUB),
    ("Qwen/Qwen2.5-0.5B-Instruct", _QWEN25_05B, 32_768, _HUB),
    ("Qwen/Qwen2.5-1.5B", _QWEN25_15B, 131_072, _HUB),
    ("Qwen/Qwen2.5-1.5B-Instruct", _QWEN25_15B, 32_768, _HUB),
    ("Qwen/Qwen2.5-Math-1.5B", _QWEN25_15B, 4096, _HUB),
    ("Qwen/Qwen2.5-Math-1.5B-Instruct", _QWEN25_15B, 4096, _HUB),
    ("Qwen/Qwen2.5-3B", _QWEN25_3B, 32_768, _LLM_PROF),
    ("Qwen/Qwen2.5-3B-Instruct", _QWEN25_3B, 32_768, _LLM_CLIENT),
    ("Qwen/Qwen2-7B", _QWEN25_7B, 131_072, _QWEN2),
    ("Qwen/Qwen2.5-7B", _QWEN25_7B, 131_072, _LLM_PROF),
    ("Qwen/Qwen2.5-7B-Instruct", _QWEN25_7B, 32_768, _KVFIT),
    ("Qwen/Qwen2.5-Math-7B", _QWEN25_7B, 4096, _HUB),
    ("Qwen/Qwen2.5-Math-7B-Instruct", _QWEN25_7B, 4096, _HUB),
    ("Qwen/Qwen2.5-14B", _QWEN25_14B, 131_072, _LLM_PROF),
    ("Qwen/Qwen2.5-14B-Instruct", _QWEN25_14B, 32_768, _LLM_CLIENT),
    ("Qwen/Qwen2.5-32B", _QWEN25_32B, 131_072, _LLM_PROF),
    ("Qwen/Qwen2.5-32B-Instruct", _QWEN25_32B, 32_768, _LLM_CLIENT),
    ("meta-llama/Meta-Llama-3-8B", _LLAMA3_8B, 8192, _KVFIT),
    ("meta-llama/Meta-Llama-3-8B-Instruct", _LLAMA3_8B, 8192, _LLAMA_3),
    ("meta-llama/Llama-3.1-8B", _LLAMA3_8B, 131_072, _LLM_PROF),
    ("meta-llama/Llama-3.1-8B-Instruct", _LLAMA3_8B, 131_072, _KVFIT),
    ("allenai/Llama-3.1-Tulu-3-8B-SFT", _TULU3_8B, 131_072, _TULU),
    ("allenai/Llama-3.1-Tulu-3-8B", _TULU3_8B, 131_072, _TULU),
    ("meta-llama/Llama-3.2-1B", _LLAMA32_1B, 131_072, _HUB),
    ("meta-llama/Llama-3.2-1B-Instruct", _LLAMA32_1B, 131_072, _HUB),
    ("meta-llama/Llama-3.2-3B", _LLAMA32_3B, 131_072, _LLM_PROF),
    ("meta-llama/Llama-3.2-3B-Instruct", _LLAMA32_3B, 131_072, _KVFIT),
    ("deepseek-ai/deepseek-math-7b-base", _DEEPSEEK_MATH_7B, 4096, _HUB),
    ("deepseek-ai/deepseek-math-7b-instruct", _DEEPSEEK_MATH_7B, 4096, _HUB),
    ("deepseek-ai/deepseek-math-7b-rl", _DEEPSEEK_MATH_7B, 4096, _HUB),
    ("Qwen/Qwen3-0.6B", _QWEN3_06B, 40_960, _LITGPT),
    ("Qwen/Qwen3-0.6B-Base", _QWEN3_06B, 32_768, _QWEN3_BASE),
    ("Qwen/Qwen3-1.7B", _QWEN3_17B, 40_960, _NEKO_LORA),
    ("Qwen/Qwen3-1.7B-Base", _QWEN3_17B, 32_768, _QWEN3_BASE),
    ("Qwen/Qwen3-4B", _QWEN3_4B, 40_960, _LLM_PROF),
    ("Qwen/Qwen3-4B-Base", _QWEN3_4B, 32_768, _QWEN3_BASE),
    ("Qwen/Qwen3-4B-Instruct-2507", _QWEN3_4B, 262_144, _WARPIO),
    ("Qwen/Qwen3-4B-Thinking-2507", _QWEN3_4B, 262_144, _LITGPT),
    ("Qwen/Qwen3-8B", _QWEN3_8B, 40_960, _LLM_PROF),
    ("Qwen/Qwen3-8B-Base", _QWEN3_8B, 32_768, _COPY + "Chen-Oliver/qwen3-8b-base@1e44ee1/config.json"),
    ("Qwen/Qwen3-14B", _QWEN3_14B, 40_960, _LLM_PROF),
    ("Qwen/Qwen3-14B-Base", _QWEN3_14B, 32_768, _QWEN3_BASE),
    ("Qwen/Qwen3-32B", _QWEN3_32B, 40_960, _LLM_PROF),
    ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", _TINY_LLAMA, 2048, _NANOQUANT),
    ("meta-llama/Llama-2-7b-hf", _LLAMA2_7B, 4096, _KVFIT),
    ("meta-llama/Llama-2-7b-chat-hf", _LLAMA2_7B, 4096, _ONNX_TOOL),
    ("meta-llama/Llama-2-13b-hf", _LLAMA2_13B, 4096, _KVFIT),
    ("meta-llama/Llama-2-13b-chat-hf", _LLAMA2_13B, 4096, _LITGPT),
    ("meta-llama/Llama-2-70b-hf", _LLAMA2_70B, 4096, _LLM_ENGINE),
    ("meta-llama/Llama-2-70b-chat-hf", _LLAMA2_70B, 4096, _LITGPT),
    ("meta-llama/Meta-Llama-3-70B", _LLAMA3_70B, 8192, _KVFIT),
    ("meta-llama/Llama-3.1-70B", _LLAMA3_70B, 131_072, _LITGPT),
    ("meta-llama/Llama-3.1-70B-Instruct", _LLAMA3_70B, 131_072, _LITGPT),
    ("meta-llama/Llama-3.3-70B-Instruct", _LLAMA3_70B, 131_072, _KVFIT),
    ("mistralai/Mistral-7B-v0.1", _MISTRAL_7B_V01, 32_768, _KVFIT),
    ("mistralai/Mistral-7B-Instruct-v0.2", _MISTRAL_7B_V01, 32_768, _LITGPT),
    ("mistralai/Mistral-7B-v0.3", _MISTRAL_7B_V03, 32_768, _LITGPT),
    ("mistralai/Mistral-7B-Instruct-v0.3", _MISTRAL_7B_V03, 32_768, _KVFIT),
    ("mistralai/Mistral-Nemo-Base-2407", _MISTRAL_NEMO, 131_072, _NEMO_BASE),
    ("mistralai/Mistral-Nemo-Instruct-2407", _MISTRAL_NEMO, 131_072, _KVFIT),
    ("mistralai/Mistral-Small-Instruct-2409", _MISTRAL_SMALL_2409, 32_768, _SMALL_2409),
    ("mistralai/Mistral-Small-24B-Instruct-2501", _MISTRAL_SMALL_2501, 32_768, _LLM_CLIENT),
    (
        "mistralai/Mistral-Small-24B-Base-2501",
        _MISTRAL_SMALL_2501,
        32_768,
        _LITGPT + ", but for its longest sequence: 131072 there, here as of its instructed sibling",
    ),
    ("mistralai/Magistral-Small-2509", _MISTRAL_SMALL_2501, 131_072, _MAGISTRAL),
    ("microsoft/Phi-3.5-mini-instruct", _PHI3_MINI, 131_072, _THUNDER_BLOCKS + "d84dd5c/hf_phi3/phi3_rope.py"),
    ("microsoft/Phi-3-mini-4k-instruct", _PHI3_MINI, 4096, _KVFIT),
    ("microsoft/Phi-3-mini-128k-instruct", _PHI3_MINI, 131_072, _PHI3_128K),
    ("microsoft/Phi-3-medium-4k-instruct", _PHI3_MEDIUM, 4096, _ONNX_TOOL),
    ("microsoft/phi-4", _PHI4, 16_384, _KVFIT),
    ("microsoft/Phi-4-reasoning", _PHI4, 32_768, _LITGPT),
    ("microsoft/Phi-4-reasoning-plus", _PHI4, 32_768, _LITGPT),
    ("microsoft/Phi-4-mini-instruct", _PHI4_MINI, 131_072, _LITGPT),
    ("microsoft/Phi-4-mini-reasoning", _PHI4_MINI, 131_072, _LITGPT),
    *(
        (f"Qwen/Qwen2.5-Coder-{size}{kind}", shape, 32_768, _LITGPT)
        for size, shape in (
            ("0.5B", _QWEN25_05B),
            ("1.5B", _QWEN25_15B),
            ("3B", _QWEN25_3B),
            ("7B", _QWEN25_7B),
            ("14B", _QWEN25_14B),
            ("32B", _QWEN25_32B),
        )
        for kind in ("", "-Instruct")
    ),
    *(
        (f"HuggingFaceTB/SmolLM2-{size}{kind}", shape, 8192, _LITGPT)
        for size, shape in (("135M", _SMOLLM2_135M), ("360M", _SMOLLM2_360M), ("1.7B", _SMOLLM2_17B))
        for kind in ("", "-Instruct")
    ),
    *(
        (f"google/gemma-2-{size}{kind}", shape, 8192, _LITGPT)
        for size, shape in (("2b", _GEMMA2_2B), ("9b", _GEMMA2_9B), ("27b", _GEMMA2_27B))
        for kind in ("", "-it")
    ),
    ("google/gemma-3-1b-it", _GEMMA3_1B, 32_768, _LITGPT + ", but for its longest sequence: 131072 there"),
    ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", _R1_QWEN_15B, 131_072, _R1_15B),
    ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", _QWEN25_7B, 131_072, _R1_BASE),
    ("deepseek-ai/DeepSeek-R1-Distill-Qwen-14B", _QWEN25_14B, 131_072, _R1_BASE),
    ("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", _QWEN25_32B, 131_072, _R1_BASE),
    ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", _LLAMA3_8B, 131_072, _LITGPT),
    ("deepseek-ai/DeepSeek-R1-Distill-Llama-70B", _LLAMA3_70B, 131_072, _LITGPT),
    ("deepseek-ai/deepseek-coder-1.3b-base", _DEEPSEEK_CODER_13B, 16_384, _CODER),
    ("deepseek-ai/deepseek-coder-1.3b-instruct", _DEEPSEEK_CODER_13B, 16_384, _CODER),
    ("deepseek-ai/deepseek-coder-6.7b-base", _DEEPSEEK_CODER_67B, 16_384, _CODER_67B),
    ("deepseek-ai/deepseek-coder-6.7b-instruct", _DEEPSEEK_CODER_67B, 16_384, _CODER_67B),
    ("Qwen/Qwen-1_8B", _QWEN1_18B, 8192, _QWEN1),
    ("Qwen/Qwen-7B", _QWEN1_7B, 8192, _QWEN1),
    ("Qwen/Qwen-7B-Chat", _QWEN1_7B, 8192, _QWEN1),
    ("Qwen/Qwen-14B", _QWEN1_14B, 8192, _QWEN1_COUNT),
    ("Qwen/Qwen-14B-Chat", _QWEN1_14B, 8192, _QWEN1_COUNT),
    *(
        (f"Qwen/Qwen1.5-{size}{kind}", shape, 32_768, _QWEN15)
        for size, shape in (
            ("0.5B", _QWEN15_05B),
            ("1.8B", _QWEN15_18B),
            ("4B", _QWEN15_4B),
            ("7B", _QWEN15_7B),
            ("14B", _QWEN15_14B),
        )
        for kind in ("", "-Chat")
    ),
    ("Qwen/Qwen1.5-32B", _QWEN15_32B, 32_768, _QWEN15_32B_COUNT),
    ("Qwen/Qwen1.5-32B-Chat", _QWEN15_32B, 32_768, _QWEN15_32B_COUNT),
    ("01-ai/Yi-6B-Chat", _YI_6B, 4096, _YI),
)

CATALOGUE: dict[str, ModelShape] = {
    name: replace(shape, key=name, max_positions=longest, source=f"{name}: {evidence}")
    for name, shape, longest, evidence in _ROWS
}

# What mirrors and quantised copies add to a model's own name.
_COPIES = r"(-unsloth)?(-bnb-4bit)?$|-hf$|-gptq$|-instruct$|-base$"


def find_shape(name: str) -> ModelShape | None:
    """Returns the row of a name as reports write it ("Llama-2-7B", "unsloth/Qwen3-14B-bnb-4bit"), or None."""
    return CATALOGUE.get(name) or _by_bare_name().get(_bare(name))


def find_mirrored(name: str) -> ModelShape | None:
    """Returns the row of the model that Unsloth's copy is made from, in 16 or in 4 bit, or None.

    Only the owner and the suffix of a 4-bit upload are removed: a chat model may take fewer tokens than its base.
    """
    owner, _, copy = name.rpartition("/")
    suffix = re.search(_FOUR_BIT, copy)
    original = _by_last_name().get(re.sub(_FOUR_BIT, "", copy).lower()) if owner == "unsloth" else None
    quantised: Quantised = "no" if suffix is None else "dynamic" if suffix[1] else "plain"
    return original and replace(original, key=name, quantised=quantised, source=f"as {original.source}")


def names_experts(name: str) -> bool:
    """Returns whether a hub name is known for a mixture of experts: by its family, or by the size that is active."""
    return re.search(_EXPERTS, name.rpartition("/")[2], re.IGNORECASE) is not None


_EXPERTS = (
    r"moe\b|mixtral|\b\d+x\d+b\b|-a\d+(\.\d+)?b\b|^deepseek-(coder-)?v[23]|^deepseek-r1(-zero|-\d+)?$|^gpt-oss|^dbrx"
)
"""Qwen3-30B-A3B, Mixtral-8x7B, DeepSeek-V3, gpt-oss-20b, ..."""
_FOUR_BIT = r"(-unsloth)?-bnb-4bit$"
"""Unsloth's uploads in 4 bit; those with its own name in the suffix are dynamic."""


def _bare(name: str) -> str:
    bare = name.rpartition("/")[2].lower().removeprefix("meta-")
    while (shorter := re.sub(_COPIES, "", bare)) != bare:
        bare = shorter
    return bare


@cache
def _by_bare_name() -> dict[str, ModelShape]:
    return {_bare(name): shape for name, shape in reversed(CATALOGUE.items())}


@cache
def _by_last_name() -> dict[str, ModelShape]:
    return {name.rpartition("/")[2].lower(): shape for name, shape in CATALOGUE.items()}
