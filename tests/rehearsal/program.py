"""Runs a program as `python -c` does, in a process that `ask` forks: `python -m tests.rehearsal.program TEXT`."""

import sys

text = sys.argv[1]
sys.argv[:2] = ["-c"]
exec(compile(text, "<string>", "exec"))  # a program of this project or of Python's own
