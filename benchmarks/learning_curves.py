"""What does each family of rewards teach? One real run per family, on the tiny base that fits its first reward.

    .venv/bin/python benchmarks/learning_curves.py --out benchmarks/records/learning-curves.json
    .venv/bin/python benchmarks/learning_curves.py --rewards matrix_l1 tag_count

Each run is `lowmem-rl train` with one reward of weight 1 and a fixed seed. Its curve is the mean reward of the sampled
completions by step, with greedy means over unseen problems before and after, and their 95 % intervals. A run has
learned if these do not overlap. The control, a random reward, must not learn: its score is correctness.

`scripts/make_tiny_model.py` makes the bases; `scripts/tiny_lessons.py` describes what they are taught. They are not
shipped: a missing one is made first, under `--bases`, in minutes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from lowmem_rl.models.lookup import TINY, TINY_DIRECTORY
from lowmem_rl.rewards.length import cosine_score, overlong_penalty
from lowmem_rl.rewards.reward_registry import REWARDS, load_reward
from lowmem_rl.stats import Interval, wilson
from lowmem_rl.storage.cache import cache_dir
from lowmem_rl.storage.run_dir import Row, RunDir, read_json, read_rows

MAKE_BASE = Path(__file__).parents[1] / "scripts" / "make_tiny_model.py"

ARITHMETIC_LIMIT, SEQUENCE_LIMIT = 64, 72
"""Token limits of the length rewards. In arithmetic, working is longer than guesses; with sequences, careless
completions have 60 to 74 tokens and working has 39 to 49."""

TASK_OPTIONS = {
    "arithmetic": (),
    "countdown": ("--set=task.levels=[2]", "--set=task.prompt=countdown"),
    # Drawing the last few matrices takes longer than drawing all before them.
    "matrix_inverse": ("--set=task.levels=[1]", "--set=task.limit=1000", "--set=eval.examples=250"),
    "program_synthesis": ("--set=task.levels=[1]", f"--set=grpo.max_completion_tokens={SEQUENCE_LIMIT}"),
}
"""The levels and the prompt that a base was taught, as changes of preset tiny-cpu."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One reward that one base learns from."""

    family: str
    reward: str
    base: str
    options: tuple[str, ...] = ()
    scorer: Callable[[Row], float] | None = None
    """Scores a held-out completion; the reward's own score if None."""
    is_control: bool = False

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest score of a held-out completion."""
        reward = load_reward(self.reward)
        return (0.0, 1.0) if self.scorer is is_correct else (reward.low, reward.high)

    def score(self, item: Row) -> float:
        """Returns a held-out completion's score; a skipped one counts as 0, as in training."""
        return self.scorer(item) if self.scorer else item["scores"][self.reward] or 0.0


def is_correct(item: Row) -> float:
    """Returns 1 for an answer anywhere in the completion, else 0: for rewards that cannot score a completion alone."""
    return float(item["correct"])


def fine(item: Row) -> float:
    """Scores as soft_overlong does, to a token: an evaluation leaves out all rewards that need the model."""
    return overlong_penalty(item["tokens"], SEQUENCE_LIMIT)


def cosine(item: Row) -> float:
    """Scores as cosine_length does, to a token."""
    return cosine_score(item["tokens"], ARITHMETIC_LIMIT, right=item["strict"])


CURVES = (
    Curve("answer", "boxed_answer", "arithmetic"),
    Curve("answer", "any_answer", "arithmetic"),
    Curve("format", "answer_tags", "countdown"),
    Curve("format", "think_format", "countdown"),
    Curve("format", "tag_count", "countdown"),
    Curve("length", "soft_overlong", "program_synthesis", scorer=fine),
    Curve("length", "cosine_length", "arithmetic", scorer=cosine),
    Curve("repetition", "repetition", "program_synthesis"),
    # Alone it pays for any words, and the perfect completion has none: train refuses that without --force.
    Curve("language", "language_consistency", "program_synthesis", ("--force",)),
    Curve("linear algebra", "matrix_frobenius", "matrix_inverse"),
    Curve("linear algebra", "matrix_rows", "matrix_inverse"),
    Curve("linear algebra", "matrix_l1", "matrix_inverse"),
    Curve("countdown", "countdown", "countdown"),
    Curve("program", "program_synthesis", "program_synthesis"),
    Curve("perplexity", "perplexity", "arithmetic", scorer=is_correct),
    Curve("perplexity", "perplexity_signed", "arithmetic", scorer=is_correct),
    Curve("control", "random", "arithmetic", scorer=is_correct, is_control=True),
)


def curves_of(rewards: Sequence[str]) -> list[Curve]:
    """Returns the curves of these rewards, or the first of each family if there are none."""
    firsts = {curve.family: curve.reward for curve in reversed(CURVES)}.values()
    return [curve for curve in CURVES if curve.reward in (rewards or firsts)]


def main() -> None:
    """Runs the curves one after the other, makes missing bases, and writes the record."""
    options = _options()
    earlier = read_json(options.out) if options.resume else {"bases": {}, "curves": []}
    rows, bases = earlier["curves"], earlier["bases"]
    done = {(row["reward"], row["seed"]) for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        for curve, seed in product(curves_of(options.rewards), options.seeds):
            if (curve.reward, seed) in done:
                continue
            base = base_of(curve.base, options.bases)
            bases[curve.base] = {"weights_sha256": digest(base)}
            out = RunDir(Path(folder, f"{curve.reward}-{seed}"))
            rows.append(measure(curve, seed, base, out))
            print(" | ".join(cells(rows[-1])), file=sys.stderr)
            # After each run, so that a later failure loses nothing.
            options.out.write_text(json.dumps(record(rows, read_json(out.machine), bases), indent=2) + "\n")
    print("\n".join(table(rows)))


def record(rows: list[dict[str, Any]], machine: dict[str, Any], bases: dict[str, Any]) -> dict[str, Any]:
    """Returns the record of all runs."""
    return {
        "date": date.today().isoformat(),
        "command": " ".join(["python -m benchmarks.learning_curves", *sys.argv[1:]]),
        "machine": machine,
        "bases": bases,
        "curves": rows,
    }


def base_of(task: str, folder: Path) -> Path:
    """Returns the directory of a task's base and makes it if it is missing; arithmetic's is the embedded model."""
    if task == "arithmetic":
        return TINY_DIRECTORY
    path = folder / task
    # The card is written last.
    if not (path / "README.md").is_file():
        print(f"making the base of {task} in {path}", file=sys.stderr)
        call(sys.executable, str(MAKE_BASE), f"--task={task}", f"--out={path}")
    return path


def call(*command: str) -> None:
    """Runs a command on one thread, the fastest for so small a model. Exits with its output if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")


def measure(curve: Curve, seed: int, base: Path, out: RunDir) -> dict[str, Any]:
    """Returns the result of one run, and the wall time of the whole command in seconds."""
    model = TINY if base == TINY_DIRECTORY else str(base)
    began = time.monotonic()
    call(
        str(Path(sys.executable).with_name("lowmem-rl")),
        *("train", "--preset=tiny-cpu", f"--set=model.name={model}", f"--task={curve.base}"),
        *("--set=eval.every=0", f"--reward={curve.reward}=1.0", f"--seed={seed}", f"--out={out.path}"),
        *(*TASK_OPTIONS[curve.base], *curve.options),
    )
    seconds = time.monotonic() - began
    return result(curve, seed, out) | {"seconds": round(seconds, 1)}


def result(curve: Curve, seed: int, out: RunDir) -> dict[str, Any]:
    """Returns the result of a finished run."""
    evaluations = read_json(out.evaluations)
    ends = {name: [curve.score(item) for item in read_rows(out.eval_items(name))] for name in ("before", "after")}
    intervals = {name: interval(scores, *curve.range) for name, scores in ends.items()}
    means = {name: fmean(scores) for name, scores in ends.items()}
    return {
        "family": curve.family,
        "reward": curve.reward,
        "task": curve.base,
        "seed": seed,
        "judged_by": "answers" if curve.scorer is is_correct else "reward",
        "range": curve.range,
        "held_out": len(ends["before"]),
        **means,
        "intervals": {name: [of_end.low, of_end.high] for name, of_end in intervals.items()},
        "learned": means["after"] > means["before"] and intervals["before"].is_disjoint_from(intervals["after"]),
        "is_control": curve.is_control,
        "right": {name: evaluations[name]["pass_at_1"] for name in ends},
        "tokens": {name: evaluations[name]["completion_tokens"] for name in ends},
        "reward_by_step": [round(row["reward"], 4) for row in read_rows(out.metrics)],
    }


def interval(scores: list[float], low: float, high: float) -> Interval:
    """Returns a 95 % interval of a mean of scores in a range: Wilson's interval of a share.

    Of all variables in [0, 1] with one mean, those of 0 and 1 vary most: for partial credit it is never too narrow.
    """
    share = wilson(sum((score - low) / (high - low) for score in scores), len(scores))
    return Interval(*(low + end * (high - low) for end in (share.low, share.high)))


def digest(base: Path) -> str:
    """Returns the SHA-256 of a base's weights."""
    return sha256((base / "model.safetensors").read_bytes()).hexdigest()


HEAD = ("family", "reward", "task", "greedy, before", "after", "sampled, first steps", "last", "correct", "seconds", "")


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yields the lines of a Markdown table, one per run."""
    yield f"| {' | '.join(HEAD)} |"
    yield "|---" * len(HEAD) + "|"
    for row in rows:
        yield f"| {' | '.join(cells(row))} |"


def cells(row: dict[str, Any]) -> Iterator[str]:
    """Yields the cells of a run; a control is as expected if it has learned nothing."""
    yield from (row["family"], f"`{row['reward']}`", row["task"])
    for end in ("before", "after"):
        low, high = row["intervals"][end]
        yield f"{row[end]:.2f} [{low:.2f}, {high:.2f}]"
    steps = row["reward_by_step"]
    yield from (f"{fmean(few):.2f}" for few in (steps[:FEW], steps[-FEW:]))
    yield f"{row['right']['before']:.2f} → {row['right']['after']:.2f}"
    yield f"{row['seconds']:.0f}"
    yield "as expected" if row["learned"] != row["is_control"] else "not as expected"


FEW = 3
"""Steps at the beginning and the end of a curve whose mean reward the table shows."""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rewards", nargs="+", default=[], choices=REWARDS, metavar="NAME", help="default: the first of each family"
    )
    parser.add_argument("--resume", action="store_true", help="keep the runs in --out and add the others")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--bases", type=Path, default=cache_dir() / "bases", help="default: in the user's cache")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/records/learning-curves.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
