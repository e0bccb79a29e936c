"""Does it matter which weights learn? Every method of `[trainable]` on the embedded model, each at its own rate.

    .venv/bin/python benchmarks/trainable_methods.py --jobs 2 --docs docs/trainable.md
    .venv/bin/python benchmarks/trainable_methods.py --arms lora-all whole-last --seeds 0 1

An arm is a list of settings over preset tiny-cpu. At one common rate an arm can look as if it did not learn, and learn
like the others at a rate three times as high: each arm therefore takes the best of as many rates, searched on a seed of
its own, by the mean reward of a shorter run. It is then trained with each of the other seeds. Compared is the mean
reward of all steps, which also tells arms from each other that end level; the final greedy pass@1 is next to it.

An arm learns if with every seed the 95 % interval of its pass@1 is above the base's, on the same items. Runs that are
in the record are not repeated.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from time import monotonic

from lowmem_rl.config.compose import resolve
from lowmem_rl.errors import ConfigError
from lowmem_rl.storage.run_dir import Row, RunDir, read_json, read_rows, write_json

LORA_RATES = (2e-4, 5e-4, 1e-3, 2e-3)
WHOLE_RATES = (1e-4, 2e-4, 5e-4, 1e-3)
FEW_RATES = (3e-3, 1e-2, 3e-2, 1e-1)
"""For arms with a few hundred numbers or fewer."""
SEARCH_SEED, SEARCH_STEPS, STEPS, EXAMPLES = 100, 20, 40, 500
SMALL = ("grpo.prompts_per_step=4", "memory.micro_batch=32", "eval.every=0", "logging.samples_every=1000")
"""Half of the preset's prompts: a step takes half the time, and arms differ as they do with all."""
RUNS_OF_A_PROCESS = 8
"""A run leaves patches of the libraries: the next is slower."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A choice of weights: settings over the preset, and the rates that are searched."""

    name: str
    rates: tuple[float, ...]
    settings: tuple[str, ...] = ()


def lora(name: str, *settings: str) -> Arm:
    """Returns an arm of adapters."""
    return Arm(f"lora-{name}", LORA_RATES, settings)


def whole(name: str, *settings: str) -> Arm:
    """Returns an arm of whole weights."""
    return Arm(f"whole-{name}", WHOLE_RATES, ("trainable.method=full", *settings))


BITS_16 = "model.bits=16"
FIVE_STEPS, TEN_STEPS = "trainable.every=5", "trainable.every=10"
SELECTED = ("trainable.select=grad_norm", "trainable.select_top=1")
ARMS = (
    lora("all"),
    lora("first", "trainable.layers=first:1"),
    lora("middle", "trainable.layers=middle:1"),
    lora("last", "trainable.layers=last:1"),
    lora("rank-1", "adapter.rank=1", "adapter.alpha=2"),
    lora("dora", "adapter.use_dora=true"),
    lora("rslora", "adapter.use_rslora=true"),
    Arm("tinylora", FEW_RATES, ("adapter.peft_type=tinylora",)),
    lora("unfreezing", "trainable.schedule=gradual_unfreezing", TEN_STEPS),
    lora("freezing", "trainable.schedule=gradual_freezing", TEN_STEPS),
    lora("freezeout", "trainable.schedule=freezeout"),
    lora("autofreeze", "trainable.schedule=autofreeze", FIVE_STEPS),
    lora("slimfit", "trainable.schedule=slimfit", "trainable.every=1", "trainable.state=keep"),
    lora("lisa", "trainable.schedule=lisa", FIVE_STEPS),
    lora("badam", "trainable.schedule=badam", FIVE_STEPS),
    lora("select", *SELECTED),
    whole("all"),
    whole("first", "trainable.layers=first:1"),
    whole("middle", "trainable.layers=middle:1"),
    whole("last", "trainable.layers=last:1"),
    whole("bfloat16", "trainable.dtype=bfloat16"),
    whole("everything", BITS_16, 'trainable.extra=["embed_tokens", "norm"]'),
    whole("unfreezing", "trainable.schedule=gradual_unfreezing", TEN_STEPS),
    whole("freezing", "trainable.schedule=gradual_freezing", TEN_STEPS),
    whole("autofreeze", "trainable.schedule=autofreeze", FIVE_STEPS),
    whole("lisa", BITS_16, "trainable.schedule=lisa", FIVE_STEPS),
    whole("badam", BITS_16, "trainable.schedule=badam", FIVE_STEPS),
    whole("select", *SELECTED),
    Arm("norms", FEW_RATES, ("trainable.method=full", "trainable.layers=none", "trainable.extra=norms")),
)


@dataclass(frozen=True, slots=True)
class Trial:
    """One run: an arm, a rate, a seed."""

    arm: str
    settings: tuple[str, ...]
    rate: float
    seed: int
    steps: int

    @property
    def is_search(self) -> bool:
        return self.seed == SEARCH_SEED

    @property
    def key(self) -> str:
        """Two trials with one key are one run."""
        return json.dumps([self.settings, self.rate, self.seed, self.steps])

    @property
    def overrides(self) -> list[str]:
        """What is set over the preset; a search needs no evaluation."""
        examples = 16 if self.is_search else EXAMPLES
        run = (f"seed={self.seed}", f"grpo.steps={self.steps}", f"optimizer.learning_rate={self.rate}")
        return [*SMALL, *self.settings, *run, f"eval.examples={examples}"]


def train(trial: Trial) -> Row:
    """Trains, and returns the run's row of the record."""
    from lowmem_rl.entrypoints.train import run  # it loads torch

    began = monotonic()
    with tempfile.TemporaryDirectory() as folder:
        out = RunDir(Path(folder, "run"))
        run(resolve(preset="tiny-cpu", settings=trial.overrides), out.path)
        rows, ends = list(read_rows(out.metrics)), read_json(out.evaluations)
        machine = read_json(out.machine)
    numbers = [row["trainable_numbers"] for row in rows]
    return {
        "key": trial.key,
        "arm": trial.arm,
        "rate": trial.rate,
        "seed": trial.seed,
        "reward": fmean(row["reward"] for row in rows),
        "reward_by_step": [round(row["reward"], 4) for row in rows],
        "numbers_at_once": [min(numbers), max(numbers)],
        "seconds": round(monotonic() - began, 1),
        "pass_at_1": {name: ends[name]["pass_at_1"] for name in ("before", "after")},
        "intervals": {name: ends[name]["pass_at_1_interval"] for name in ("before", "after")},
        "machine": machine,
    }


class Record:
    """The rows of all runs, written after each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        found = read_json(path) if path.is_file() else {}
        self.rows: dict[str, Row] = {row["key"]: row for row in found.get("runs", [])}
        self.machine: Row = found.get("machine", {})

    def add(self, row: Row) -> None:
        """Takes a run's row."""
        self.machine = row.pop("machine")
        self.rows[row["key"]] = row

    def write(self, arms: Sequence[Arm]) -> None:
        """Writes the runs and what they say of each arm."""
        summaries = [found for arm in ARMS if (found := summary(self.of(arm.name))) is not None]
        about = {
            "date": date.today().isoformat(),
            "command": " ".join(["python benchmarks/trainable_methods.py", *sys.argv[1:]]),
            "rule": "learns: with every seed the 95 % interval of pass@1 is above the base's",
            "search": {"seed": SEARCH_SEED, "steps": SEARCH_STEPS, "rates": {arm.name: arm.rates for arm in arms}},
        }
        write_json(self.path, about | {"machine": self.machine, "arms": summaries, "runs": list(self.rows.values())})

    def of(self, arm: str) -> list[Row]:
        """Returns an arm's runs."""
        return [row for row in self.rows.values() if row["arm"] == arm]


def best_rate(rows: Iterable[Row]) -> float | None:
    """Returns the rate of the search with the highest mean reward, the lowest of equals; None without a search."""
    found = [row for row in rows if row["seed"] == SEARCH_SEED]
    return max(found, key=lambda row: (row["reward"], -row["rate"]))["rate"] if found else None


def summary(rows: Sequence[Row]) -> Row | None:
    """Returns what an arm's runs say, None before the first."""
    seeds = [row for row in rows if row["seed"] != SEARCH_SEED and row["rate"] == best_rate(rows)]
    if not seeds:
        return None
    low, high = zip(*(row["numbers_at_once"] for row in seeds), strict=True)
    return {
        "arm": seeds[0]["arm"],
        "rate": seeds[0]["rate"],
        "seeds": [row["seed"] for row in seeds],
        "numbers_at_once": [min(low), max(high)],
        "reward": {"mean": fmean(row["reward"] for row in seeds), "of_seeds": [row["reward"] for row in seeds]},
        "base": fmean(row["pass_at_1"]["before"] for row in seeds),
        "pass_at_1": [row["pass_at_1"]["after"] for row in seeds],
        "learns": all(row["intervals"]["after"]["low"] > row["intervals"]["before"]["high"] for row in seeds),
    }


HEAD = ("arm", "numbers at once", "rate", "mean reward, seeds", "pass@1, seeds (base)", "")


def table(arms: Sequence[Row]) -> Iterator[str]:
    """Yields a Markdown table, by mean reward."""
    yield f"| {' | '.join(HEAD)} |"
    yield "|---" * len(HEAD) + "|"
    for arm in sorted(arms, key=lambda arm: -arm["reward"]["mean"]):
        few, many = arm["numbers_at_once"]
        cells = (
            f"`{arm['arm']}`",
            f"{many:,}" if few == many else f"{few:,} to {many:,}",
            f"{arm['rate']:g}",
            f"{arm['reward']['mean']:.2f} ({_range(arm['reward']['of_seeds'])})",
            f"{fmean(arm['pass_at_1']):.3f} ({_range(arm['pass_at_1'])}; {arm['base']:.3f})",
            "learns" if arm["learns"] else "does not learn",
        )
        yield f"| {' | '.join(cells)} |"


BEGIN, END = "<!-- the table of methods -->", "<!-- the end of the table -->"
"""Between these a document has the table."""


def with_table(text: str, arms: Sequence[Row]) -> str:
    """Returns a document with the table between its marks. Raises `ValueError` if it lacks them."""
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"the document lacks {BEGIN} and {END}")
    return "\n".join([before + BEGIN, *table(arms), END + after])


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


def known_arms(arms: Iterable[Arm]) -> list[Arm]:
    """Returns the arms whose settings this version has."""
    found = []
    for arm in arms:
        try:
            resolve(preset="tiny-cpu", settings=Trial(arm.name, arm.settings, arm.rates[0], 0, STEPS).overrides)
        except ConfigError as error:
            print(f"{arm.name} is left out: {error}", file=sys.stderr)
        else:
            found.append(arm)
    return found


def run_all(trials: Sequence[Trial], record: Record, arms: Sequence[Arm], jobs: int) -> None:
    """Trains those that the record lacks, and writes it after each.

    Not by concurrent.futures, whose processes of limited life can wait for each other (CPython issue 115634).
    """
    missing = [trial for trial in trials if trial.key not in record.rows]
    with get_context("spawn").Pool(jobs, maxtasksperchild=RUNS_OF_A_PROCESS) as pool:
        for row in pool.imap_unordered(train, missing, chunksize=1):
            record.add(row)
            record.write(arms)
            ends = f"reward {row['reward']:.2f}, pass@1 {row['pass_at_1']['after']:.3f}, {row['seconds']:.0f} s"
            left = sum(trial.key not in record.rows for trial in trials)
            print(f"{row['arm']}, rate {row['rate']:g}, seed {row['seed']}: {ends}; {left} left", file=sys.stderr)


def main() -> None:
    """Searches a rate for each arm, trains it with each seed, and prints the table."""
    options = _options()
    if SEARCH_SEED in options.seeds:
        sys.exit(f"Seed {SEARCH_SEED} is the search's own.")
    arms = known_arms(arm for arm in ARMS if arm.name in options.arms)
    record = Record(options.out)
    search = [
        Trial(arm.name, arm.settings, rate, SEARCH_SEED, min(SEARCH_STEPS, options.steps))
        for arm in arms
        for rate in arm.rates
    ]
    run_all(search, record, arms, options.jobs)
    rates = {arm.name: best_rate(record.of(arm.name)) for arm in arms}
    trials = [
        Trial(arm.name, arm.settings, rates[arm.name] or 0.0, seed, options.steps)
        for arm in arms
        for seed in options.seeds
    ]
    run_all(trials, record, arms, options.jobs)
    record.write(arms)
    measured = read_json(options.out)["arms"]
    print("\n".join(table(measured)))
    if options.docs is not None:
        options.docs.write_text(with_table(options.docs.read_text("utf-8"), measured), "utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [arm.name for arm in ARMS]
    parser.add_argument("--arms", nargs="+", default=names, choices=names, metavar="NAME", help="default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time, each on one core")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/records/trainable-2026-11-30.json"))
    parser.add_argument("--docs", type=Path, help="document that takes the table between its marks")
    return parser.parse_args()


if __name__ == "__main__":
    main()
