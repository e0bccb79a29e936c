"""One arm, alive in a process of its own: it takes a step when it is told to, and says what the step took.

Messages are JSON objects, one a line: an order comes in on standard input, its answer goes out on standard output. What
libraries print goes to standard error.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TextIO

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.policy import import_unsloth, prepare_process
from lowmem_rl.errors import LowMemError
from lowmem_rl_bench.step.arms import ARMS


@dataclass(frozen=True, slots=True)
class ArmTask:
    """What an arm is to train, as it is ordered.

    The file `out`.gradients.npz gets a replay's first gradient, `out`.weights.npz the last adapter.
    """

    out: str
    settings: Mapping[str, Any]
    seed: int = 0
    workload: str | None = None
    """File of a replay."""
    examples: str | None = None
    """File of a live run's data."""
    noise: bool = False
    """A live run takes the tokens that our engine's random streams pick, in every arm."""


def main() -> int:
    """Serves until the orders end."""
    orders, answers = sys.stdin, _answers()
    try:
        _serve(orders, answers)
    except LowMemError as error:
        _send(answers, {"error": str(error), "hint": error.hint, "exit_code": error.exit_code})
    return 0


def _answers() -> TextIO:
    """Takes standard output for the answers; whoever else prints there gets standard error."""
    kept = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return kept


def _serve(orders: TextIO, answers: TextIO) -> None:
    start = _order(orders)
    arm, device = ARMS[start["arm"]], Device(**start["device"])
    config = arm.configure(RunConfig.model_validate(start["config"]))
    prepare_process(config, device)
    if arm.stack != "trl":
        import_unsloth()
    from lowmem_rl_bench.step import stacks
    from lowmem_rl_bench.step.session import ArmSession

    policy = stacks.load(arm, config, device)
    _send(answers, {"loaded": arm.name})
    session = ArmSession(arm, config, policy, partial(_order, orders), partial(_send, answers))
    while order := _order(orders):
        session.run(ArmTask(**order["begin"]))


def _order(orders: TextIO) -> dict[str, Any]:
    """Returns the next order, nothing at their end."""
    line = orders.readline()
    return json.loads(line) if line else {}


def _send(answers: TextIO, answer: Mapping[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main())
