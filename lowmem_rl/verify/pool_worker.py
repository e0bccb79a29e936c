"""The nursery of the symbolic workers: it imports Math-Verify once and forks a worker for each socket it is handed.

`pool.py` runs it by its path in an interpreter of its own, so that neither torch nor a user's script is forked or
imported again, and a worker that was killed is replaced in milliseconds. It needs the standard library and Math-Verify.
"""

import contextlib
import json
import os
import resource
import signal
import socket
import sys
from typing import Any

MEMORY_LIMIT_BYTES = 2 << 30
"""Of address space, for one worker; Math-Verify and its libraries take a fifth of it."""

WARM_UP = [("x^2+2x+1", "(x+1)^2"), ("[1,2)", "(1,2)"), ("\\sin(x)", "\\cos(x)"), ("x=1", "y<2"), ("\\{1,2\\}", "1,2")]


def main() -> None:
    """Serves the control socket, the first argument, until its other end is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the workers
    control = socket.socket(fileno=int(sys.argv[1]))
    algebra = load_algebra()
    for pair in WARM_UP:  # each worker inherits filled caches
        algebra(*pair)
    while True:
        _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not descriptors:
            return
        connection = socket.socket(fileno=descriptors[0])
        pid = os.fork()
        if pid == 0:
            control.close()
            serve(connection, algebra)
            os._exit(0)
        connection.close()
        control.sendall(f"{pid}\n".encode())


def serve(connection: socket.socket, algebra: Any) -> None:
    """Answers requests, one JSON line each, with one byte each, until the other end is gone."""
    with contextlib.suppress(OSError, ValueError):  # macOS refuses the first
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in connection.makefile("rb"):
        gold, given, seconds = json.loads(line)
        # The asker kills a worker that is late. This alarm, whose default action is death, is for one nobody waits for.
        signal.setitimer(signal.ITIMER_REAL, 2 * seconds)
        connection.sendall(b"1" if algebra(gold, given) else b"0")
        signal.setitimer(signal.ITIMER_REAL, 0)


def load_algebra() -> Any:
    """Returns a function of two LaTeX texts, the gold one first, that says whether they are equal.

    Only Math-Verify's LaTeX reader is used: its other one hands text to Python's `eval` (sympy.parse_expr).
    """
    import logging

    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable()
    config = [LatexExtractionConfig()]

    def read(text: str) -> Any:
        return parse(f"${text}$", config, fallback_mode="no_fallback", parsing_timeout=None)

    def same(gold: str, given: str) -> bool:
        return bool(verify(read(gold), read(given), allow_set_relation_comp=True, timeout_seconds=None))

    return same


if __name__ == "__main__":
    main()
