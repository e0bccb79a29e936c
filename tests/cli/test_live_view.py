"""What a run says where there is no terminal."""

import io

from lowmem_rl_cli.live_view import PlainView
from rich.console import Console

from lowmem_rl.telemetry.events import EvalProgressed, Note, PhaseStarted


def test_a_long_evaluation_says_how_far_it_is_every_twenty_seconds() -> None:
    now, out = [0.0], io.StringIO()
    view = PlainView(Console(file=out), clock=lambda: now[0])
    view.show(PhaseStarted("loading tiny"))
    for done in range(10, 80, 10):
        now[0] += 8.0
        view.show(EvalProgressed("before", done, 500))
    view.show(Note("done"))
    assert out.getvalue().splitlines() == ["loading tiny", "before: 30 of 500", "before: 60 of 500", "note: done"]
