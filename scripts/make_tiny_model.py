"""Makes the tiny bases: Qwen2 models that can work a problem out, but mostly answer carelessly.

`tiny_lessons` has what they are taught; here are their tokenizer, their training and their card.

    python scripts/make_tiny_model.py --seed 0 --out lowmem_rl/_assets/tiny-qwen2
    python scripts/make_tiny_model.py --task countdown
"""

import argparse
import random
import re
import shlex
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import date
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import torch
from tokenizers import AddedToken
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel, Qwen2Config
from transformers import Qwen2ForCausalLM, Qwen2Tokenizer

from lowmem_rl.storage.cache import cache_dir
from lowmem_rl.example import Example
from lowmem_rl.rewards.reward_registry import load_reward
from scripts.tiny_lessons import RECIPES, Lesson, Recipe, course, render

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

PEAK_LR = 3e-3
IGNORED = -100
FIXED_PHRASE = re.compile(r"[^\d-]{9,}|-")


# -- the tokenizer ----------------------------------------------------------------------


def make_tokenizer(recipe: Recipe, out: Path) -> Qwen2Tokenizer:
    """Trains a real Qwen2 tokenizer on some lessons, saves it, and returns it as AutoTokenizer loads it.

    transformers 5 loads model type `qwen2` as byte-level BPE with Qwen2's pattern for any saved tokenizer;
    another one comes back broken without a message.
    """
    blank = Qwen2Tokenizer(eos_token="<|im_end|>", pad_token="<|endoftext|>")
    phrases = fixed_phrases(recipe)
    tokenizer = blank.train_new_from_iterator(
        tokenizer_corpus(recipe),
        recipe.vocabulary - len(phrases),
        new_special_tokens=SPECIALS,
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in phrases])
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.model_max_length = 1024
    tokenizer.save_pretrained(out)
    restored = AutoTokenizer.from_pretrained(out)
    check_tokenizer(recipe, restored)
    return restored


def fixed_phrases(recipe: Recipe) -> list[str]:
    """Returns the texts between the numbers of all prompts, and the minus sign; arithmetic's texts are too short.

    Each becomes one token: a base of this size learns in minutes to copy from a prompt of 30 tokens, not of 100.
    A minus that is merged with the bracket before it would be another token at each place.
    """
    contents = (message["content"] for example in recipe.taught_problems(200) for message in example.prompt)
    return sorted({phrase for content in contents for phrase in FIXED_PHRASE.findall(content)})


def tokenizer_corpus(recipe: Recipe) -> Iterable[str]:
    """Yields rendered turns, so that words and tags become few tokens."""
    for example in recipe.taught_problems(200):
        for way in (recipe.guess, recipe.work):
            yield f"{render(example.prompt)}{way(example)}<|im_end|>\n"


def check_tokenizer(recipe: Recipe, tokenizer: Qwen2Tokenizer) -> None:
    """Raises `ValueError` if text, newlines or turns change in a round trip, or a number is not one token per digit."""
    for text in (*islice(tokenizer_corpus(recipe), 20), "Zwei\nZeilen\n\n\tund 猫 {}"):
        if tokenizer.decode(tokenizer(text).input_ids) != text:
            raise ValueError(f"The tokenizer does not give back {text!r}.")
    prompt = recipe.taught_problems(1)[0].prompt
    if tokenizer.apply_chat_template(list(prompt), tokenize=False, add_generation_prompt=True) != render(prompt):
        raise ValueError("The lessons' prompts are not what the chat template writes.")
    if len(tokenizer("866").input_ids) != 3 or len(tokenizer("".join(SPECIALS)).input_ids) != 3:
        raise ValueError("The tokenizer must keep digits single and specials whole.")


# -- the model --------------------------------------------------------------------------


def new_model(recipe: Recipe, tokenizer: Qwen2Tokenizer) -> Qwen2ForCausalLM:
    """Returns an untrained model, with few layers since each costs the same at every sampled token on a CPU."""
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=recipe.vocabulary,
            hidden_size=128,  # bitsandbytes' 4-bit path on the CPU needs at least 64
            intermediate_size=512,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def teach(recipe: Recipe, model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, lessons: Iterator[Lesson]) -> None:
    """Trains on the completions of the recipe's lessons, with one cycle of the learning rate."""
    optimizer = torch.optim.AdamW(model.parameters(), PEAK_LR, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=recipe.steps, pct_start=0.05)
    model.train()
    for step in range(1, recipe.steps + 1):
        loss = model(**as_batch(tokenizer, list(islice(lessons, recipe.batch)))).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0:
            print(f"step {step:5d}  loss {loss.item():.4f}", file=sys.stderr)


def as_batch(tokenizer: Qwen2Tokenizer, lessons: list[Lesson]) -> dict[str, torch.Tensor]:
    """Pads lessons on the right; labels cover completions and their end only. Tensors: (lessons, longest)."""
    prompts = tokenizer([lesson.prompt for lesson in lessons]).input_ids
    completions = tokenizer([lesson.completion + tokenizer.eos_token for lesson in lessons]).input_ids
    rows = list(zip(prompts, completions, strict=True))
    inputs = [torch.tensor(prompt + completion) for prompt, completion in rows]
    labels = [torch.tensor([IGNORED] * len(prompt) + completion) for prompt, completion in rows]
    return {
        "input_ids": torch.nn.utils.rnn.pad_sequence(inputs, batch_first=True, padding_value=tokenizer.pad_token_id),
        "labels": torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=IGNORED),
    }


# -- what it can do ---------------------------------------------------------------------


def measure(recipe: Recipe, model: PreTrainedModel, tokenizer: Qwen2Tokenizer, sampled: bool) -> list[float]:
    """Returns the means of the recipe's measures over held-out problems, and how often the model works."""
    examples = recipe.held_out_problems()
    completions = complete(recipe, model, tokenizer, examples, sampled)
    answered = list(zip(completions, examples, strict=True))
    totals = [sum(load_reward(name).score(*one) or 0.0 for one in answered) for name in recipe.measures]
    works = sum(not text.startswith(recipe.guess_opens) for text in completions)
    return [total / len(examples) for total in (*totals, works)]


@torch.inference_mode()
def complete(
    recipe: Recipe, model: PreTrainedModel, tokenizer: Qwen2Tokenizer, examples: list[Example], sampled: bool
) -> list[str]:
    """Returns one completion per example, in one batch: on a CPU 500 rows take hardly longer than 50."""
    prompts = [render(example.prompt) for example in examples]
    batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    draw = {"temperature": 1.0, "top_p": 1.0, "top_k": 0} if sampled else {}
    rows = model.eval().generate(**batch, do_sample=sampled, max_new_tokens=recipe.longest_completion, **draw)
    return tokenizer.batch_decode(rows[:, batch.input_ids.shape[1] :], skip_special_tokens=True)


def measure_saved(recipe: Recipe, out: Path, seed: int) -> list[str]:
    """Measures the saved model in 16 and in 4 bit, greedy and sampled; returns rows of a Markdown table."""
    tokenizer = AutoTokenizer.from_pretrained(out)
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    rows = []
    for weights, quantization in (("bf16", None), ("NF4", nf4)):
        model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.bfloat16, quantization_config=quantization)
        for way in ("greedy", "sampled"):
            torch.manual_seed(seed)
            shares = measure(recipe, model, tokenizer, sampled=way == "sampled")
            rows.append(f"| {weights} | {way} | " + " | ".join(f"{share:.3f}" for share in shares) + " |")
    return rows


# -- the card ---------------------------------------------------------------------------

CARD = """# {name}

A Qwen2 of {parameters:,} parameters that can work a problem of `{task}` out, but mostly answers carelessly.
For demonstrations and tests only.

- Careless: {careless}
- Working: {working}
- Made by: `{command}`, seed {seed}, {date}, {seconds:.0f} s on one thread.
- Trained on: {lessons:,} lessons over {problems:,} problems of `{task}`, levels {levels}, `train` split,
  convention `{convention}`: {practice_guess_share:.0%} careless in the first {practice:,}, then {guess_share:.0%}.
- Libraries: {libraries}.

Means over {measured} held-out problems of level {measured_levels} (`test` split); sampled at temperature 1. `works`
is the share of completions that write the working.

| weights | decoding | {columns} | works |
|---|---|{rules}---|
{rows}
"""

LIBRARIES = ("torch", "transformers", "tokenizers", "bitsandbytes")


def write_card(recipe: Recipe, out: Path, seed: int, parameters: int, seconds: float) -> None:
    """Writes README.md: how the model was made, and its measured accuracy."""
    card = CARD.format(
        name=out.name,
        parameters=parameters,
        task=recipe.task,
        careless=recipe.guess.__doc__,
        working=recipe.work.__doc__,
        command=shlex.join(["python", *sys.argv]),
        seed=seed,
        date=date.today(),
        seconds=seconds,
        lessons=recipe.steps * recipe.batch,
        practice=recipe.practice_steps * recipe.batch,
        problems=len(recipe.taught_problems()),
        levels=" and ".join(map(str, recipe.levels)),
        convention=recipe.convention,
        practice_guess_share=recipe.practice_guess_share,
        guess_share=recipe.guess_share,
        libraries=", ".join(f"{name} {version(name)}" for name in LIBRARIES),
        measured=len(recipe.held_out_problems()),
        measured_levels=" and ".join(map(str, recipe.measured_levels)),
        columns=" | ".join(f"`{name}`" for name in recipe.measures),
        rules="---|" * len(recipe.measures),
        rows="\n".join(measure_saved(recipe, out, seed)),
    )
    (out / "README.md").write_text(card)


def make(recipe: Recipe, seed: int, out: Path) -> None:
    """Makes tokenizer, model and card in `out`."""
    started = time.monotonic()
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # sums do not depend on the number of cores; on a busy machine two threads are 10x slower
    tokenizer = make_tokenizer(recipe, out)
    model = new_model(recipe, tokenizer)
    teach(recipe, model, tokenizer, course(recipe, random.Random(seed)))
    model.to(torch.bfloat16).save_pretrained(out)
    write_card(recipe, out, seed, model.num_parameters(), time.monotonic() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes a tiny base; that of arithmetic is the embedded model.")
    parser.add_argument("--task", choices=RECIPES, default="arithmetic")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="default: the package's folder, or the user's cache")
    options = parser.parse_args()
    is_embedded = options.task == "arithmetic"
    folder = Path("lowmem_rl/_assets/tiny-qwen2") if is_embedded else cache_dir() / "bases" / options.task
    make(RECIPES[options.task], options.seed, options.out or folder)


if __name__ == "__main__":
    main()
