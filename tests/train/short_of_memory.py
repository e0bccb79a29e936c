"""A training that may take 200 MB more than its loaded model: `python -m tests.train.short_of_memory OUT`."""

import resource
import sys
from pathlib import Path

from lowmem_rl.config.compose import resolve
from lowmem_rl.entrypoints.train import run
from lowmem_rl.telemetry.events import Event, PhaseStarted

SETTINGS = ["grpo.steps=2", "memory.micro_batch=64", "eval.examples=8", "eval.every=0", "logging.samples_every=1"]


def listen(event: Event) -> None:
    if event == PhaseStarted("training"):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + 200 * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    run(resolve(preset="tiny-cpu", settings=SETTINGS), Path(sys.argv[1]), listen)
