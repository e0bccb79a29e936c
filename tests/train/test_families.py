"""Tiny random models of the classes that people train: loaded, sampled, taken a step, resumed, evaluated, exported."""

import json
import shutil
import string
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from lowmem_rl.engine.backend import SamplingBackend
from lowmem_rl.engine.trained_model import WEIGHTS, config_of
from lowmem_rl.memory.adapter_tensors import learning_tensors, numbers_in
from lowmem_rl.models.lookup import TINY_DIRECTORY, load_shape
from lowmem_rl.storage.run_dir import RunDir, read_json, read_rows, write_json

pytestmark = pytest.mark.usefixtures("preloaded")

TEMPLATES = Path(__file__).parents[1] / "data" / "chat_templates"
SETTINGS = (
    "task.prompt=bare",
    "rewards.boxed_answer=0",
    "rewards.think_format=0",
    "rewards.random=1",  # a random model earns nothing else
    "grpo.prompts_per_step=2",
    "grpo.group_size=4",
    "grpo.max_completion_tokens=16",
    "memory.micro_batch=8",
    "optimizer.warmup_steps=0",
    "eval.examples=4",
    "eval.every=0",
    "logging.checkpoint_every=1",
    "logging.keep_checkpoints=9",
)
STEPS = 2


@dataclass(frozen=True, slots=True)
class Family:
    """A class of transformers, what its config needs beyond a decoder's sizes, and its chat template."""

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    template: str | None = None
    """Of `TEMPLATES`; None is the embedded model's, whose words are few."""
    engine: str = "lowmem"
    reason: str = "log-probs differ by"
    """What the run says about the engine that samples."""
    adapted: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Its linear layers, each with an adapter."""

    @property
    def pieces(self) -> bool:
        """Its tokenizer is a SentencePiece one, with bytes for what it lacks; the others are byte-level."""
        return self.name in ("Mistral", "Phi3", "Gemma2", "Gemma3")


UNKNOWN = "our engine does not know this model"
FAMILIES = (
    Family("Llama"),
    Family("Qwen3", {"head_dim": 32}, "qwen_3"),
    Family("Mistral", {"sliding_window": None}, "mistral_v3"),
    Family("Gemma2", {"head_dim": 32, "query_pre_attn_scalar": 32}, "gemma_2", "generate", UNKNOWN),
    Family("Gemma3", {"head_dim": 32, "query_pre_attn_scalar": 32}, "gemma_3", "generate", UNKNOWN),
    Family("Phi3", {}, "phi_3", "generate", UNKNOWN, ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")),
    Family("SmolLM3", {}, None, "generate", UNKNOWN),
)


def write_model(family: Family, folder: Path) -> Path:
    """Writes a random model of the family with a small tokenizer of its kind."""
    import torch
    import transformers

    tokenizer = pieces_tokenizer(family, folder) if family.pieces else byte_tokenizer(family, folder)
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    kind = "Gemma3Text" if family.name == "Gemma3" else family.name
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    more = {"num_key_value_heads": 1, "max_position_embeddings": 512, "vocab_size": 384}
    config = getattr(transformers, f"{kind}Config")(**sizes | more | ids | family.config)
    torch.manual_seed(0)
    model = getattr(transformers, f"{family.name}ForCausalLM")(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    if family.template is not None:
        (folder / "chat_template.jinja").write_bytes((TEMPLATES / f"{family.template}.jinja").read_bytes())
    return folder


def byte_tokenizer(family: Family, folder: Path) -> Any:
    """Writes the embedded model's byte-level tokenizer, as Llama 3, Qwen and SmolLM have one."""
    from transformers import AutoTokenizer

    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(TINY_DIRECTORY / name, folder / name)
    settings = folder / "tokenizer_config.json"
    if family.name != "Qwen3":
        found = json.loads(settings.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
        settings.write_text(json.dumps(found))
    return AutoTokenizer.from_pretrained(TINY_DIRECTORY)


def pieces_tokenizer(family: Family, folder: Path) -> Any:
    """Writes a tokenizer of single characters and bytes, as SentencePiece models with byte fallback are."""
    from transformers import GemmaTokenizer, LlamaTokenizer

    is_gemma = family.name.startswith("Gemma")
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"] if is_gemma else ["<unk>", "<s>", "</s>", "<pad>"]
    characters = ["▁", *string.ascii_letters, *string.digits, *"*+-?.\\{}=<>/_|[]\n"]
    words = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), *characters]
    vocabulary = {word: number for number, word in enumerate(words)}
    kind = GemmaTokenizer if is_gemma else LlamaTokenizer
    tokenizer = kind(vocab=vocabulary, merges=[], pad_token="<pad>")
    tokenizer.save_pretrained(folder)
    return tokenizer


@dataclass(frozen=True, slots=True)
class Trained:
    """A family's model and a run of two steps on it."""

    family: Family
    model: Path
    run: RunDir


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.name)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    from lowmem_rl_cli.app import main

    folder = tmp_path_factory.mktemp(request.param.name)
    model, out = write_model(request.param, folder / "model"), folder / "run"
    settings = [f"--set={setting}" for setting in (f"model.name={json.dumps(str(model))}", *SETTINGS)]
    assert main(["train", "--preset=tiny-cpu", *settings, f"--steps={STEPS}", "--force", f"--out={out}"]) == 0
    return Trained(request.param, model, RunDir(out))


def test_it_is_sampled_by_the_engine_that_knows_it_or_the_run_says_why(trained: Trained) -> None:
    recorded = read_json(trained.run.engine)["sampling"]
    backend = SamplingBackend(**recorded)
    assert (backend.engine, trained.family.reason in backend.reason) == (trained.family.engine, True)
    assert load_shape(str(trained.model)).is_sampled_by_us == (trained.family.engine == "lowmem")


def test_its_steps_move_every_adapter_that_was_planned(trained: Trained) -> None:
    rows = list(read_rows(trained.run.metrics))
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["grad_norm"] > 0 for row in rows)
    learned = load_file(trained.run.adapter / WEIGHTS)
    moved = {name.split(".")[-3] for name, weight in learned.items() if "lora_B" in name and weight.any()}
    assert moved == set(trained.family.adapted)
    planned = learning_tensors(config_of(trained.run), load_shape(str(trained.model)))
    assert numbers_in(planned) == sum(weight.numel() for weight in learned.values())
    assert read_json(trained.run.evaluations)["after"]["num_examples"] == 4


@pytest.mark.long
def test_it_resumes_is_evaluated_and_exported_with_proof(trained: Trained, tmp_path: Path) -> None:
    from lowmem_rl_cli.app import main

    killed = RunDir(shutil.copytree(trained.run.path, tmp_path / "run"))
    for folder in (killed.checkpoints / f"step-{STEPS:06d}", killed.adapter):
        shutil.rmtree(folder)
    write_json(killed.evaluations, read_json(killed.evaluations) | {"after": None, "comparison": None})
    assert main(["train", "--resume", f"--out={killed.path}"]) == 0
    assert [row["step"] for row in read_rows(killed.resumes)] == [1]
    once, again = (load_file(run.adapter / WEIGHTS) for run in (trained.run, killed))
    assert all(once[name].equal(again[name]) for name in once)
    assert main(["eval", str(killed.path), "--examples=2"]) == 0
    for form in ("adapter", "merged"):
        assert main(["export", str(killed.path), f"--to={form}", "--examples=2"]) == 0
        proof = read_json(killed.path / "export" / form / "proof.json")
        assert proof["tokens"]["same"] + len(proof["tokens"]["ties"]) == 2
