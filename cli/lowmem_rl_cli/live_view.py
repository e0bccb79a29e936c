"""Shows the events of training: a live panel on a terminal, plain lines otherwise."""

import contextlib
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lowmem_rl.storage.run_dir import Row
from lowmem_rl.telemetry.events import (
    AdapterSaved,
    EvalEnded,
    EvalProgressed,
    Event,
    FindingReported,
    LayersSelected,
    Listener,
    Note,
    PhaseStarted,
    StepEnded,
)
from lowmem_rl_cli.metric_text import clock, figures, plain_line, sparkline


class EventView(Protocol):
    """Shows events, and is closed when the run has ended."""

    def show(self, event: Event) -> None: ...

    def close(self) -> None: ...


def view_for(console: Console, title: str, *, live: bool) -> EventView:
    """Returns the live panel or plain lines."""
    return PipeSafeView(LiveView(console, title) if live else PlainView(console))


@contextlib.contextmanager
def watched(title: str) -> Iterator[Listener]:
    """Yields a listener that shows events on stderr, in a live panel if stdout and stderr are terminals."""
    # Bound to the real stream: output of the libraries is redirected during a run.
    console = Console(file=sys.stderr, highlight=False)
    view = view_for(console, title, live=console.is_terminal and sys.stdout.isatty())
    try:
        yield view.show
    finally:
        view.close()


_GONE = (OSError, SystemExit)
"""What is raised if the terminal or the pipe is gone; rich turns a broken pipe into SystemExit."""


class PipeSafeView:
    """Shows events until the terminal or the pipe is gone: a closed window must not end a run."""

    def __init__(self, view: EventView) -> None:
        self.view: EventView | None = view

    def show(self, event: Event) -> None:
        """Shows the event if the terminal still exists."""
        try:
            if self.view is not None:
                self.view.show(event)
        except _GONE:
            self.view = None

    def close(self) -> None:
        """Closes the view, if it is still there."""
        with contextlib.suppress(*_GONE):
            if self.view is not None:
                self.view.close()


class EtaEstimator:
    """Estimates the time left from the steps so far; evaluations do not count."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.steps = 0

    def after(self, row: Row, num_steps: int) -> float:
        """Adds a step and returns the seconds left for the others."""
        self.seconds += row["step_s"]
        self.steps += 1
        return float(self.seconds / self.steps * (num_steps - row["step"]))


class PlainView:
    """One line an event: for logs, pipes and CI."""

    PROGRESS_S = 20.0
    """Seconds without a line after which an evaluation says how far it is."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console, self.clock = console, clock
        self.eta = EtaEstimator()
        self.last_s = clock()

    def show(self, event: Event) -> None:
        """Prints the event; one that is only progress not sooner than `PROGRESS_S` after the line before."""
        if isinstance(event, EvalProgressed) and self.clock() - self.last_s < self.PROGRESS_S:
            return
        self.last_s = self.clock()
        if isinstance(event, StepEnded):
            line = plain_line(event.row, event.num_steps, self.eta.after(event.row, event.num_steps))
        else:
            line = _describe(event)
        self.console.print(Text(line), soft_wrap=True)

    def close(self) -> None:
        """Does nothing: every line is printed."""


class LiveView:
    """A panel that is redrawn in place: progress, the metrics of the last step, the curves of the main ones."""

    CURVES = ("reward", "accuracy", "informative_share", "completion_tokens")

    def __init__(self, console: Console, title: str) -> None:
        self.title = title
        self.eta = EtaEstimator()
        self.phase = "starting"
        self.done, self.total, self.left_s = 0, 1, 0.0
        self.row: Row | None = None
        self.curves: dict[str, list[float]] = defaultdict(list)
        self.live = Live(self._panel(), console=console, refresh_per_second=4, transient=True)
        self.live.start()

    def show(self, event: Event) -> None:
        """Updates the panel; events that should stay readable are printed above it."""
        if isinstance(event, StepEnded):
            self.phase, self.row = "training", event.row
            self.done, self.total = event.row["step"], event.num_steps
            self.left_s = self.eta.after(event.row, event.num_steps)
            for name in self.CURVES:
                if (value := event.row.get(name)) is not None:
                    self.curves[name].append(value)
        elif isinstance(event, EvalProgressed):
            self.phase, self.done, self.total = f"evaluating ({event.name})", event.done, event.total
        elif isinstance(event, PhaseStarted):
            self.phase, self.done, self.total = event.name, 0, 1
        else:
            self.live.console.print(Text(_describe(event)))
        self.live.update(self._panel())

    def close(self) -> None:
        """Restores the terminal and prints the last metrics."""
        self.live.stop()
        self.phase, self.done, self.total = "ended", 1, 1
        if self.row is not None:
            self.live.console.print(self._panel())

    def _panel(self) -> Panel:
        parts: list[RenderableType] = [self._progress()]
        if self.row is not None:
            parts += [Text(), _columns(self.row), Text(), self._curve_table()]
        return Panel(Group(*parts), title=Text(self.title, style="bold"), title_align="left", padding=(1, 2))

    def _progress(self) -> Table:
        grid = Table.grid(padding=(0, 2), expand=True)
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        grid.add_column(no_wrap=True, justify="right")
        left = f"{clock(self.left_s)} left" if self.row is not None and self.phase == "training" else ""
        grid.add_row(Text(self.phase), ProgressBar(self.total, self.done), Text(f"{self.done}/{self.total}  {left}"))
        return grid

    def _curve_table(self) -> Table:
        grid = Table.grid(padding=(0, 2))
        for name, values in self.curves.items():
            first_to_last = f"{values[0]:.3g} → {values[-1]:.3g}"
            grid.add_row(Text(name.replace("_", " ")), Text(sparkline(values), style="cyan"), Text(first_to_last))
        return grid


def _describe(event: Event) -> str:
    """Returns an event as a line; selected layers have one each."""
    match event:
        case PhaseStarted(name):
            return name
        case Note(text):
            return f"note: {text}"
        case FindingReported(found) | LayersSelected(found):
            return str(found)
        case EvalEnded(name, result):
            low, high = result.pass_at_1_interval.low, result.pass_at_1_interval.high
            return (
                f"{name}: pass@1 {result.pass_at_1:.3f} [{low:.3f}, {high:.3f}] "
                f"on {result.num_examples} held-out examples, {result.seconds:.1f} s"
            )
        case AdapterSaved(path):
            return f"saved {path}"
        case EvalProgressed(name, done, total):
            return f"{name}: {done} of {total}"
        case StepEnded(row, num_steps):
            return plain_line(row, num_steps, 0.0)


def _columns(row: Row) -> Table:
    """Returns the metrics in two columns of label and value."""
    cells = list(figures(row))
    half = -(-len(cells) // 2)
    grid = Table.grid(padding=(0, 3))
    for column in range(4):
        grid.add_column(justify="right" if column % 2 else "left", style="bold" if column % 2 else "")
    for left, right in zip(cells[:half], [*cells[half:], ("", "")], strict=False):
        grid.add_row(*left, *right)
    return grid
