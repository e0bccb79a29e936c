"""Trains on the cards of this machine with TRL and accelerate: `bash run.sh` starts one process a card.

What varies is in `trl.json`: `grpo_config` are the arguments of `trl.GRPOConfig`, `lora` those of `peft.LoraConfig`.
The prompts are in `data`. Checkpoints come into `out`, and the adapter that has learned into `out/adapter`. Started
again, it continues after the newest checkpoint.
"""

import json
import runpy
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Settings = dict[str, Any]


def main(folder: Path) -> None:
    """Trains the run in a folder and saves what has learned."""
    settings = json.loads((folder / "trl.json").read_text("utf-8"))
    import_trl(on_cpu=settings["on_cpu"])
    from transformers.trainer_utils import get_last_checkpoint

    from lowmem_rl.rewards.isolated import isolated
    from lowmem_rl.rewards.reward_registry import load_reward_set

    # A user's reward that hangs costs one completion.
    with isolated(load_reward_set(settings["rewards"])) as rewards:
        trainer = make_trainer(folder, settings, rewards)
        out = Path(trainer.args.output_dir)
        if settings["on_cpu"]:
            load_to_numbered_cpus()
        trainer.train(resume_from_checkpoint=get_last_checkpoint(out) if out.is_dir() else None)
    trainer.save_state()
    trainer.save_model(str(out / "adapter"))


def import_trl(*, on_cpu: bool) -> None:
    """Imports TRL. Its language-model head is a Triton kernel, for which unsloth_zoo has an equivalent on a CPU.

    That one file is loaded by its path: Unsloth itself would rewrite TRL.
    """
    import trl  # noqa: F401

    if on_cpu:
        zoo: Any = find_spec("unsloth_zoo")
        runpy.run_path(str(Path(zoo.origin).with_name("cpu") / "ops.py"))["patch_trl_fused_lm_head"]()


def load_to_numbered_cpus() -> None:
    """Lets processes without a card load checkpoints, each to its own `cpu:0` or so, which torch.load does not know."""
    import torch

    def load(data: Any, place: str) -> Any:
        return data if place.startswith("cpu:") else None

    torch.serialization.register_package(9, lambda data: None, load)


def make_trainer(
    folder: Path, settings: Settings, rewards: Any, kind: type | None = None, callbacks: Sequence[Any] = ()
) -> Any:
    """Returns the trainer, of TRL's class or of `kind`, ready for `train()`."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    arguments = settings["grpo_config"] | {"output_dir": str(folder / "out")}
    args = GRPOConfig(**arguments)  # first: it starts the processes' group
    tokenizer = AutoTokenizer.from_pretrained(model_path(settings), revision=settings["revision"], padding_side="left")
    rows = usable_rows(folder, settings, tokenizer)
    model, adapter = load_model(folder, settings)
    learned = {name: weight.data for name, weight in model.named_parameters() if weight.requires_grad}
    trainer = (kind or GRPOTrainer)(
        model=model,
        args=args,
        train_dataset=Dataset.from_list(
            [{"prompt": row["prompt"], "example_id": row["extra_info"]["id"]} for row in rows]
        ),
        reward_funcs=reward_functions(settings, rewards, rows, tokenizer),
        processing_class=tokenizer,
        peft_config=adapter,
        callbacks=list(callbacks),
    )
    keep_exact(trainer.model, learned)
    return trainer


def model_path(settings: Settings) -> str:
    """Returns the model's name on the hub, or its folder."""
    from lowmem_rl.models import lookup

    return lookup.model_path(settings["model"])


def usable_rows(folder: Path, settings: Settings, tokenizer: Any) -> list[dict[str, Any]]:
    """Returns the rows of the run, in its order: a prompt beyond the limit is left out, never cut."""
    from lowmem_rl.scale_out.rows import read_rows

    def tokens(row: dict[str, Any]) -> int:
        text = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    rows = read_rows(folder / "data" / "train.parquet")
    usable = [row for row in rows if tokens(row) <= settings["max_prompt_tokens"]]
    if len(usable) < len(rows):
        print(
            f"{len(rows) - len(usable)} prompts of over {settings['max_prompt_tokens']} tokens are left out", flush=True
        )
    return usable[: settings["prompts"]]


def load_model(folder: Path, settings: Settings) -> tuple[Any, Any]:
    """Returns the frozen model with the adapter to continue with, or with the configuration of a new one."""
    import torch
    from accelerate import PartialState
    from peft import LoraConfig, PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    options: Settings = {"revision": settings["revision"], "dtype": getattr(torch, settings["dtype"])}
    if settings["quantization"]:
        options["quantization_config"] = BitsAndBytesConfig.from_dict(settings["quantization"])
    if not settings["on_cpu"]:
        options["device_map"] = {"": PartialState().local_process_index}
    model = AutoModelForCausalLM.from_pretrained(model_path(settings), **options)
    if not settings["adapter"]:
        return model, LoraConfig(**settings["lora"], task_type="CAUSAL_LM")
    return PeftModel.from_pretrained(model, str(folder / settings["adapter"]), is_trainable=True), None


def keep_exact(model: Any, learned: dict[str, Any]) -> None:
    """Lets the adapter learn in float32, from the `learned` weights on.

    Over 4-bit weights TRL rounds it to bfloat16, which resolves 2^-8 of a weight: small updates would be lost.
    """
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            weight.data = learned.get(name, weight.data).to(weight.device).float()


def reward_functions(settings: Settings, rewards: Any, rows: Sequence[dict[str, Any]], tokenizer: Any) -> list[Any]:
    """Returns the run's own rewards as TRL calls them."""
    from lowmem_rl.scale_out.rows import example_of
    from lowmem_rl.training.reward_errors import RewardErrorCounter
    from lowmem_rl.trl_adapter.reward_funcs import TrlReward

    def complete(ids: Sequence[int]) -> str:
        return str(settings["prefill"]) + str(tokenizer.decode(ids, skip_special_tokens=True))

    examples = [example_of(row["reward_model"]["ground_truth"], row["extra_info"]) for row in rows]
    by_id = {example.id: example for example in examples}
    errors = RewardErrorCounter(settings["max_reward_error_share"], lambda text: print(text, flush=True))
    return [TrlReward(reward, by_id, complete, errors) for reward in rewards.rewards]


if __name__ == "__main__":
    main(Path(__file__).resolve().parent)
