"""Counts words that plain international English does without, in code and documents, and prints each with its line.

    python scripts/check_words.py

`INSTEAD` is the one list; CONTRIBUTING.md shows it. A name counts by its parts: `told_at_the_end` and `ToldLater` are
each one "told". Exit code 1 if there are more than `LIMIT` per 1,000 lines of Python. No list can see a right word in a
wrong place, such as "where" for "if" or "when".
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LIMIT = 1.0

INSTEAD = {
    "ail ails ailing": "has a finding, a problem",
    "alike": "equal, both",
    "anew": "again",
    "apart": "separate, separately",
    "aught nought": "anything, nothing",
    "behind": "after",
    "beside besides": "next to, with; also",
    "borders": "step boundaries",
    "cure cures": "fix",
    "grave graver": "serious, more serious",
    "judge": "grader",
    "keeper": "checkpointer",
    "lies": "is",
    "mend mends mended": "fix, fixes, fixed",
    "stands stood": "is, was",
    "thereof whither yonder": "of it, to what, there",
    "told": "reported, printed, passed",
    "whoever": "those who",
}

ALLOWED = {
    '"cure"': "a key of health.json and of --json",
    '"told"': "a key of the committed health records",
    "intervals_apart": "a key of eval.json",
    "same_beside_the_run": "a key of the committed health records",
    "steps_alike": "a key of the committed records of `bench step --live`",
    "behind_nats": "a key of an export's proof.json",
    "apart from": "except for",
    "LLM-as-a-judge": "the field's own term",
}
"""Texts that may hold a word of the list, with the reason."""

SUFFIXES = {".py", ".md", ".toml", ".jinja", ".js"}
THEIRS = ("benchmarks/records/", "lowmem_rl/reports/uplot/")
MADE_BY_TOOLS = {"runs", "build", "dist", "unsloth_compiled_cache"}
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
EXEMPT = re.compile("|".join(map(re.escape, ALLOWED)))
EXEMPT_BLOCKS = re.compile(r"<!-- (words|health-record):begin -->.*?<!-- \1:end -->", re.DOTALL)
"""The list itself, and the texts of a committed record."""
FORBIDDEN = {word: instead for words, instead in INSTEAD.items() for word in words.split()}


class Use(NamedTuple):
    """One forbidden word at its place."""

    path: str
    line: int
    word: str


def files(root: Path) -> list[Path]:
    """Returns the tracked files that are counted; in a download without .git, all that are not made by tools."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=False)
    names = listed.stdout.split("\0")[:-1] or [str(path.relative_to(root)) for path in root.rglob("*")]
    return [root / name for name in names if _is_counted(Path(name)) and (root / name).is_file()]


def _is_counted(name: Path) -> bool:
    is_made = name.parts[0] in MADE_BY_TOOLS or name.parts[0].startswith(".")
    is_ours = not name.as_posix().startswith(THEIRS) and not name.stem.endswith("check_words")
    return name.suffix in SUFFIXES and is_ours and not is_made


def words_of(text: str) -> Iterator[str]:
    """Yields the lower-case words of a line, those of names by their parts."""
    return (word.lower() for word in WORD.findall(EXEMPT.sub(" ", text)))


def uses(root: Path) -> Iterator[Use]:
    """Yields each use of a forbidden word in the counted files below `root`."""
    for path in files(root):
        text = EXEMPT_BLOCKS.sub(lambda shown: "\n" * shown[0].count("\n"), path.read_text("utf-8"))
        for number, line in enumerate(text.splitlines(), 1):
            yield from (Use(str(path.relative_to(root)), number, word) for word in words_of(line) if word in FORBIDDEN)


def main(root: Path = ROOT) -> int:
    """Prints each use and the total; returns the exit code."""
    found = list(uses(root))
    for path, line, word in found:
        print(f"{path}:{line}: {word} (write: {FORBIDDEN[word]})")
    python = sum(len(path.read_text("utf-8").splitlines()) for path in files(root) if path.suffix == ".py")
    share = 1000 * len(found) / python
    print(f"{len(found)} words in {python} lines of Python: {share:.2f} per 1,000, at most {LIMIT}")
    return int(share > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
