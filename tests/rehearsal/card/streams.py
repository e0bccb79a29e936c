"""Streams and events of a card on which everything is done when it is asked for."""

from __future__ import annotations

import itertools
import time
from typing import Any

from tests.rehearsal.card import waits
from tests.rehearsal.card.memory import CUDA

_numbers = itertools.count()


class Stream:
    """Replaces `torch.cuda.Stream`."""

    def __init__(self, device: Any = None, priority: int = 0, **kwargs: Any) -> None:
        self.cuda_stream = self.stream_id = next(_numbers)
        self.device, self.device_index, self.device_type = CUDA, 0, 1

    def wait_stream(self, other: Any) -> None: ...

    def wait_event(self, event: Any) -> None: ...

    def synchronize(self) -> None:
        waits.note("stream.synchronize")

    def record_event(self, event: Any = None) -> Any:
        event = event or Event()
        event.record(self)
        return event

    def query(self) -> bool:
        return True

    def is_capturing(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and other.cuda_stream == self.cuda_stream

    def __hash__(self) -> int:
        return hash(self.cuda_stream)


class Event:
    """Replaces `torch.cuda.Event`. Its time is the host's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.at: float | None = None

    def record(self, stream: Any = None) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, other: Event) -> float:
        """Returns milliseconds."""
        assert self.at is not None, "both events must be recorded"
        assert other.at is not None, "both events must be recorded"
        return (other.at - self.at) * 1000

    def wait(self, stream: Any = None) -> None: ...

    def synchronize(self) -> None:
        waits.note("event.synchronize")

    def query(self) -> bool:
        return True


DEFAULT_STREAM = Stream()


class DeviceContext:
    """Replaces the context managers that choose a device or a stream: there is one of each."""

    def __init__(self, device: Any = None) -> None:
        self.idx = 0

    def __enter__(self) -> None: ...

    def __exit__(self, *args: object) -> None: ...


class StreamContext(DeviceContext):
    """One of its own: torch compares the classes."""
