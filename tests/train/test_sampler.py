"""What samples in a run is the policy: if it no longer is, the sampler falls back and reports it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lowmem_rl.config.compose import resolve
from lowmem_rl.engine import backend as backend_module
from lowmem_rl.engine import decoder_weights as weights_module
from lowmem_rl.engine import sampler as sampler_module
from lowmem_rl.engine.decoder import Decoder
from lowmem_rl.engine.decoder_weights import UnsupportedModel
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.hf_generate import answer
from lowmem_rl.engine.policy import Policy, load_policy, prepare_process
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.engine.sampling import GREEDY
from lowmem_rl.models.lookup import model_path
from lowmem_rl.storage.run_dir import RunDir, read_rows

pytestmark = pytest.mark.usefixtures("preloaded")

SETTINGS = ("memory.checkpointing=none", "memory.micro_batch=8", "grpo.max_completion_tokens=16")


def sampler_of(policy: Policy, said: list[str], *settings: str) -> Sampler:
    return Sampler(policy, config_of(*settings), said.append)


def config_of(*settings: str) -> Any:
    return resolve(preset="tiny-cpu", settings=[*SETTINGS, *settings]).config


def loaded(dtype: Any, *settings: str) -> Policy:
    config = config_of("rollout.weights=merged", *settings)
    prepare_process(config, Device("cpu", dtype))
    policy = load_policy(config, Device("cpu", dtype))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in policy.model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.05
    policy.model.train()
    return policy


@pytest.fixture(scope="module")
def policy() -> Policy:
    return loaded("float32")


def roll(sampler: Sampler) -> float:
    prompts = [sampler.policy.tokenize([{"role": "user", "content": text}]) for text in ("7*8", "12*13")]
    sampler.rollout(prompts, ["a", "b"])
    assert sampler.gap is not None
    return sampler.gap


@pytest.mark.parametrize("weights", ["merged", "quantized"])
@pytest.mark.parametrize(
    "settings",
    [(), ("rollout.repetition_penalty=1.3",), ("rollout.temperature=0.7", "rollout.top_p=0.9", "rollout.top_k=20")],
)
def test_sampled_tokens_have_the_policys_log_probs(policy: Policy, weights: str, settings: tuple[str, ...]) -> None:
    said: list[str] = []
    assert roll(sampler_of(policy, said, f"rollout.weights={weights}", *settings)) < 1e-5
    assert not said


@pytest.mark.parametrize("weights", ["merged", "quantized"])
def test_nothing_drops_out_while_sampling(weights: str) -> None:
    policy = loaded("float32", "adapter.dropout=0.5")
    sampler = sampler_of(policy, [], f"rollout.weights={weights}")
    assert sampler.uses_lowmem_engine
    assert roll(sampler) < 1e-5
    assert policy.model.training


@pytest.mark.parametrize("bits", [4, 16])
def test_in_16_bit_an_adapter_on_some_weights_is_within_rounding(bits: int) -> None:
    policy = loaded("bfloat16", f"model.bits={bits}", 'adapter.targets=["k_proj","up_proj","down_proj"]')
    assert roll(sampler_of(policy, [], "rollout.weights=merged")) < 0.02


@pytest.mark.parametrize("wrong", [0.1, float("nan")])
def test_weights_that_are_not_the_policys_are_left_step_by_step(
    policy: Policy, wrong: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    sampler = sampler_of(policy, said, "rollout.weights=merged")
    build = sampler_module.build

    def off(*args: Any) -> Any:
        decoder = build(*args)
        norm = decoder.norm
        object.__setattr__(decoder, "norm", lambda x: norm(x) * (1 + wrong))
        return decoder

    monkeypatch.setattr(sampler_module, "build", off)
    assert not sampler.is_off
    roll(sampler)
    assert sampler.is_off
    assert (sampler.backend.engine, sampler.backend.weights) == ("lowmem", "quantized")
    roll(sampler)
    assert (sampler.backend.engine, sampler.backend.weights) == ("generate", None)
    assert not sampler.uses_lowmem_engine
    assert [line.split(":")[0] for line in said] == [
        "sampling fell back from merged weights",
        "sampling fell back from quantized weights",
    ]


def test_a_model_that_the_engine_does_not_know_is_trained_through_generate(tmp_path: Path, cli: Any) -> None:
    model = tmp_path / "model"
    shutil.copytree(model_path("tiny"), model)
    known = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(known | {"hidden_act": "gelu"}))
    settings = (f"model.name={model}", "eval.examples=2", "eval.every=0")
    sets = (f"--set={setting}" for setting in settings)
    done = cli("train", "--preset=tiny-cpu", "--steps=1", "--force", f"--out={tmp_path / 'run'}", *sets)
    assert done.code == 0
    assert "sampling: generate (our engine does not know this model: its activation is gelu)" in done.stderr
    run = RunDir(tmp_path / "run")
    assert json.loads(run.engine.read_text())["sampling"]["engine"] == "generate"
    assert len(list(read_rows(run.metrics))) == 1


def test_if_the_copy_is_off_at_the_start_the_models_own_weights_are_tried(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = weights_module.merged
    monkeypatch.setattr(backend_module, "merged", lambda *args: shifted(right(*args)))
    backend = sampler_of(policy, [], "rollout.weights=merged").backend
    assert (backend.engine, backend.weights) == ("lowmem", "quantized")


def shifted(decoder: Decoder) -> Decoder:
    """The same decoder, one word more likely than it is."""
    return replace(decoder, head=lambda x: decoder.head(x) + torch.eye(1, decoder.head.out_features)[0] * 9)


def test_prompts_beyond_the_attention_window_are_answered_by_generate(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = sampler_of(policy, [], "rollout.weights=merged")
    assert sampler.uses_lowmem_engine
    build = sampler_module.build

    def short_sighted(policy: Policy, weights: Any, max_tokens: int, *rest: Any) -> Decoder:
        if max_tokens > 24:
            raise UnsupportedModel(f"its attention slides over 24 tokens, and rows grow to {max_tokens}")
        return build(policy, weights, max_tokens, *rest)

    monkeypatch.setattr(sampler_module, "build", short_sighted)
    prompt = [{"role": "user", "content": "What is 7 * 8? " * 4}]
    found = [completion for _, completion in sampler.answers([prompt] * 2, GREEDY, max_tokens=8, batch=2)]
    assert found == list(answer(policy, [prompt] * 2, GREEDY, max_tokens=8, batch=2))
