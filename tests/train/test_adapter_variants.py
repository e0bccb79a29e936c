"""Every kind of adapter on the real embedded model: it starts at the base model, is sampled as it is trained, and is
saved, evaluated and exported as what it is."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lowmem_rl.config.compose import resolve
from lowmem_rl.engine.adapter import CONFIG, WEIGHTS, become_base, load_adapter, read_adapter, weights_digest
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.policy import Policy, load_policy, prepare_process
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.entrypoints.train import run as train
from lowmem_rl.errors import RunDirError
from lowmem_rl.export.export import export
from lowmem_rl.memory.adapter_tensors import learning_tensors, numbers_in
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.storage.run_dir import RunDir, read_json, read_rows

pytestmark = pytest.mark.usefixtures("preloaded")

KINDS = {
    "rslora": ("adapter.use_rslora=true",),
    "patterns": (
        'adapter.rank_pattern={q_proj=3, "layers.(1|2).mlp.down_proj"=24}',
        "adapter.alpha_pattern={v_proj=64}",
    ),
    "dora": ("adapter.use_dora=true",),
    "dora in some": ("adapter.use_dora=true", 'adapter.targets=["k_proj","up_proj"]', "trainable.layers=last:1"),
    "all of lora": ("adapter.use_dora=true", "adapter.use_rslora=true", "adapter.rank_pattern={q_proj=3}"),
    "tinylora": ("adapter.peft_type=tinylora",),
    "untied tinylora": (
        "adapter.peft_type=tinylora",
        "adapter.weight_tying=0",
        "adapter.u=3",
        "trainable.layers=last:2",
    ),
}
PLAIN = ("memory.checkpointing=none", "memory.micro_batch=8", "grpo.max_completion_tokens=16")


def config_of(kind: str, *settings: str) -> Any:
    return resolve(preset="tiny-cpu", settings=[*PLAIN, *KINDS[kind], *settings]).config


def loaded(kind: str, dtype: Any = "float32", *settings: str) -> Policy:
    config, device = config_of(kind, *settings), Device("cpu", dtype)
    prepare_process(config, device)
    return load_policy(config, device)


def moved(policy: Policy) -> Policy:
    """Moves what learns away from the base model."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in policy.model.named_parameters():
        if weight.requires_grad:
            noise = torch.randn(weight.shape, generator=generator)
            weight.data = weight.data * (1 + 0.05 * noise) if "magnitude" in name else weight.data + 0.02 * noise
    policy.model.train()
    return policy


def logits(policy: Policy, *, adapted: bool = True) -> torch.Tensor:
    """As training computes them."""
    in_16_bit = torch.autocast("cpu", torch.bfloat16, enabled=policy.device.dtype == "bfloat16")
    with torch.no_grad(), in_16_bit, nullcontext() if adapted else policy.model.disable_adapter():
        found: torch.Tensor = policy.model.get_base_model()(input_ids=torch.arange(20)[None]).logits
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_starts_at_the_base_model_and_returns_there(kind: str, dtype: str, tmp_path: Path) -> None:
    policy = loaded(kind, dtype)
    base, start = logits(policy, adapted=False), weights_digest(policy)
    assert logits(policy).equal(base)
    moved(policy).save_adapter(tmp_path)
    away, digest = logits(policy), weights_digest(policy)
    assert not away.equal(base)
    assert logits(policy, adapted=False).equal(base)
    become_base(policy.model)
    assert logits(policy).equal(base)
    load_adapter(policy.model, tmp_path)
    assert logits(policy).equal(away)
    assert weights_digest(policy) == digest != start


@pytest.mark.parametrize("bits", [4, 16])
@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-5), ("bfloat16", 0.03)])
@pytest.mark.parametrize("kind", KINDS)
def test_sampled_tokens_have_the_policys_log_probs(kind: str, dtype: str, most: float, bits: int) -> None:
    policy, said = moved(loaded(kind, dtype, f"model.bits={bits}")), list[str]()
    prompts = [policy.tokenize([{"role": "user", "content": text}]) for text in ("7*8", "12*13")]
    for weights in ("merged", "quantized"):
        sampler = Sampler(policy, config_of(kind, f"model.bits={bits}", f"rollout.weights={weights}"), said.append)
        sampler.rollout(prompts, ["a", "b"])
        assert (sampler.backend.engine, sampler.backend.weights, said) == ("lowmem", weights, [])
        assert sampler.gap is not None
        assert sampler.gap < most


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_read_again(kind: str, tmp_path: Path) -> None:
    loaded(kind).save_adapter(tmp_path)
    config, saved = config_of(kind), read_adapter(tmp_path)
    written = saved.config.model_dump() | {"targets": set(saved.config.targets)}
    expected = config.adapter.model_dump() | {"targets": set(config.adapter.targets)}
    if config.adapter.peft_type == "tinylora":  # it has no rank and no alpha
        written |= {"rank": config.adapter.rank, "alpha": config.adapter.alpha}
    assert written == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"rank_pattern": {"(a+)+": 4}},
        {"rank_pattern": {"q_proj": 10**9}},
        {"rank_pattern": ["q_proj"]},
        {"alpha_pattern": {"q_proj": "much"}},
        {"use_dora": "perhaps"},
        {"peft_type": "LOHA"},
        {"peft_type": ["LORA"]},
        {"peft_type": "TINYLORA", "u": 10**9},
        {"peft_type": "TINYLORA", "weight_tying": 2},
        {"lora_bias": True},
    ],
)
def test_a_hostile_adapter_file_is_refused(changes: dict[str, Any], saved: Path, tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).touch()
    (tmp_path / CONFIG).write_text(json.dumps(json.loads((saved / CONFIG).read_text()) | changes))
    with pytest.raises(RunDirError, match="not a LoRA or TinyLoRA adapter that can be loaded here"):
        read_adapter(tmp_path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    loaded("dora").save_adapter(folder)
    return folder


@pytest.mark.parametrize("other", ["rslora", "patterns", "tinylora"])
def test_an_adapter_of_another_kind_does_not_fit(other: str, saved: Path) -> None:
    with pytest.raises(RunDirError, match=r"does not fit its base model|cannot be loaded"):
        load_adapter(loaded(other).model, saved)


TRAINED = ("dora", "all of lora", "patterns", "tinylora", "untied tinylora")
SHORT = ("eval.examples=8", "eval.every=0", "grpo.prompts_per_step=2", "grpo.steps=2", "grpo.beta=0.04")


@pytest.fixture(scope="module", params=TRAINED)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, RunDir]:
    """Two steps of each kind, the KL penalty on."""
    out = tmp_path_factory.mktemp("kinds") / "run"
    rate = "optimizer.learning_rate=0.02" if "tiny" in request.param else "optimizer.learning_rate=0.001"
    settings = [*SHORT, *KINDS[request.param], rate, "optimizer.warmup_steps=0", "memory.micro_batch=16"]
    train(resolve(preset="tiny-cpu", settings=settings), out)
    return request.param, RunDir(out)


def test_a_run_learns_from_no_distance_and_samples_what_it_trains(run: tuple[str, RunDir]) -> None:
    kind, folder = run
    first, last = read_rows(folder.metrics)
    assert abs(first["kl"]) < 1e-7
    assert abs(last["kl"]) > 1e-9
    assert first["grad_norm"] > 0
    assert last["lost_update_share"] < 0.05
    assert first["trainable_layers"] == ("1-2" if kind == "untied tinylora" else "0-2")
    numbers = numbers_in(learning_tensors(config_of(kind), load_shape("tiny")))
    assert first["trainable_numbers"] == numbers
    assert read_json(folder.engine)["sampling"]["engine"] == "lowmem"
    weights = load_file(folder.adapter / WEIGHTS)
    assert all(weight.any() for name, weight in weights.items() if "lora_B" in name or "tinylora_v" in name)


def test_its_evaluation_is_that_of_its_end(run: tuple[str, RunDir], cli_here: Any) -> None:
    outcome = cli_here("eval", str(run[1].path), "--examples=8", "--json")
    assert outcome.code == 0, outcome.stderr
    found = json.loads(outcome.stdout)["results"][0]["pass_at_1"]
    assert found == read_json(run[1].evaluations)["after"]["pass_at_1"]


def test_merged_it_answers_token_by_token(run: tuple[str, RunDir]) -> None:
    proof = read_json(export(run[1].path, "merged", examples=8).path / "proof.json")
    assert proof["kind"] == "tokens"
    assert proof["tokens"]["same"] + len(proof["tokens"]["ties"]) == 8


def test_as_an_adapter_too_if_peft_alone_can_load_it(run: tuple[str, RunDir], cli_here: Any) -> None:
    kind, folder = run
    outcome = cli_here("export", str(folder.path), "--to=adapter", "--examples=8")
    if "tiny" in kind:
        assert outcome.code == 2
        assert "over weights in float32 alone" in outcome.stderr
        assert "--to merged" in outcome.stderr
    else:
        assert outcome.code == 0, outcome.stderr
        assert read_json(folder.export("adapter") / "proof.json")["tokens"]["same"] == 8


def test_tinylora_over_whole_numbers_is_an_adapter_that_peft_alone_loads(tmp_path: Path) -> None:
    settings = [*SHORT, *KINDS["tinylora"], "optimizer.learning_rate=0.02", "memory.micro_batch=16", "model.bits=16"]
    train(resolve(preset="tiny-cpu", settings=settings), tmp_path / "run")
    assert read_json(export(tmp_path / "run", "adapter", examples=8).path / "proof.json")["tokens"]["same"] == 8
