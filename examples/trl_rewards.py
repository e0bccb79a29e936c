"""Reward functions as GRPO notebooks have them, for TRL's GRPOTrainer: nothing in them is changed for lowmem-rl.

    lowmem-rl train --reward examples/trl_rewards.py:correctness_reward_func=1.0 \\
        --reward examples/trl_rewards.py:strict_format_reward_func=1.0 --task table --set task.path=questions.jsonl \\
        --set 'task.columns=["prompt", "answer"]' --set task.prompt=bare

TRL calls them once for all completions of a step, with each column of the data as a list. They read an answer in
<answer> tags, so the prompts must ask for it: "prompt" of a row of questions.jsonl is
[{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": "What is 6 * 7?"}], its "answer" "42".
Run this file alone to see what they pay.
"""

import re

SYSTEM_PROMPT = """Respond in the following format:
<reasoning>
...
</reasoning>
<answer>
...
</answer>
"""


def extract_xml_answer(text: str) -> str:
    """The text between the last pair of answer tags."""
    return text.split("<answer>")[-1].split("</answer>")[0].strip()


def correctness_reward_func(prompts, completions, answer, **kwargs) -> list[float]:
    """2 for the right answer."""
    responses = [completion[0]["content"] for completion in completions]
    extracted = [extract_xml_answer(r) for r in responses]
    print("-" * 20, f"Question: {prompts[0][-1]['content']}", f"Answer: {answer[0]}", f"Read: {extracted[0]}", sep="\n")
    return [2.0 if r == a else 0.0 for r, a in zip(extracted, answer, strict=True)]


def int_reward_func(completions, **kwargs) -> list[float]:
    """0.5 for an answer that is a whole number."""
    responses = [completion[0]["content"] for completion in completions]
    return [0.5 if extract_xml_answer(r).isdigit() else 0.0 for r in responses]


def strict_format_reward_func(completions, **kwargs) -> list[float]:
    """0.5 for tags that are each on a line of their own."""
    pattern = r"^<reasoning>\n.*?\n</reasoning>\n<answer>\n.*?\n</answer>\n?$"
    responses = [completion[0]["content"] for completion in completions]
    return [0.5 if re.match(pattern, r, re.DOTALL) else 0.0 for r in responses]


def soft_format_reward_func(completions, **kwargs) -> list[float]:
    """0.5 for both pairs of tags, in order."""
    pattern = r"<reasoning>.*?</reasoning>\s*<answer>.*?</answer>"
    responses = [completion[0]["content"] for completion in completions]
    return [0.5 if re.search(pattern, r, re.DOTALL) else 0.0 for r in responses]


def count_xml(text: str) -> float:
    """An eighth for each tag that occurs once, less a thousandth for each character after the last one."""
    count = sum(0.125 for tag in ("<reasoning>\n", "\n</reasoning>\n", "\n<answer>\n") if text.count(tag) == 1)
    if text.count("\n</answer>") == 1:
        count += 0.125 - 0.001 * len(text.split("\n</answer>")[-1].strip())
    return count


def xmlcount_reward_func(completions, **kwargs) -> list[float]:
    """Up to 0.5 for the tags, so that each of them is learned alone."""
    contents = [completion[0]["content"] for completion in completions]
    return [count_xml(c) for c in contents]


if __name__ == "__main__":
    text = "<reasoning>\n6 * 7 = 42\n</reasoning>\n<answer>\n42\n</answer>\n"
    prompts = [[{"role": "user", "content": "What is 6 * 7?"}]]
    for function in (
        correctness_reward_func,
        int_reward_func,
        strict_format_reward_func,
        soft_format_reward_func,
        xmlcount_reward_func,
    ):
        paid = function(prompts=prompts, completions=[[{"role": "assistant", "content": text}]], answer=["42"])
        print(f"{function.__name__:<26} {paid[0]:.3f}")
