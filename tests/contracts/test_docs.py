"""The documents are right: their commands and links exist, their generated parts are current."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from lowmem_rl.config.keys import is_known, known_keys
from lowmem_rl.phases import Phase
from lowmem_rl.telemetry.metrics import MEASURED, NAMES

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(path for room in ("docs", "presets", "benchmarks") for path in ROOT.glob(f"{room}/**/*.md")),
]

PYTHON = re.compile(r"```python\n(?P<block>.*?)```", re.DOTALL)
SETTING = re.compile(r"--set[ =]'?\"?(?P<key>[a-z_0-9.]+)=")
CODE = re.compile(r"```\w*\n(?P<block>.*?)```|`(?P<inline>[^`\n]+)`", re.DOTALL)
LINK = re.compile(r"\]\((?!\w+:|#)(?P<target>[^)#\s]+)|(?:src|href)=\"(?!\w+:|#)(?P<source>[^\"#]+)")
SHELL_ENDS = {"|", ">", ">>", "&&", ";", "&"}


def command_lines(text: str) -> Iterator[str]:
    """Yields each `lowmem-rl ...` in code, with continued lines joined."""
    for code in CODE.finditer(text):
        for line in (code["block"] or code["inline"]).replace("\\\n", " ").splitlines():
            if match := re.match(r"(?:\$ )?(lowmem-rl\b(?!\.|-).*)", line.strip()):
                yield match[1]


def words_of(line: str) -> list[str]:
    """Returns the arguments of a command line, up to a pipe, redirection or comment."""
    words = shlex.split(line, comments=True)[1:]
    return words[: next((i for i, word in enumerate(words) if word in SHELL_ENDS), len(words))]


def parse(words: list[str]) -> None:
    """Parses the words with the real commands. Raises if a command or option is unknown."""
    from lowmem_rl_cli.app import app
    from typer.main import get_command

    command = get_command(app)
    while True:
        context = command.context_class(command)
        _, words, _ = command.make_parser(context).parse_args(words)
        if not (words and hasattr(command, "get_command")):
            break
        name, *words = words
        command = command.get_command(context, name)
        assert command, f"there is no command {name!r}"
    assert not words, f"left over: {words}"


def shown_commands() -> list:
    found = ((path.relative_to(ROOT), line) for path in DOCUMENTS for line in command_lines(path.read_text("utf-8")))
    return [pytest.param(line, id=f"{path}: {line}") for path, line in dict.fromkeys(found)]


@pytest.mark.parametrize("line", shown_commands())
def test_a_command_shown_in_the_documents_parses(line):
    parse(words_of(line))


@pytest.mark.parametrize("line", ["lowmem-rl trian", "lowmem-rl train --no-such-option"])
def test_a_command_that_does_not_exist_fails(line):
    with pytest.raises(Exception, match=r"trian|--no-such-option"):
        parse(words_of(line))


def test_every_setting_in_a_command_exists() -> None:
    shown = {key for path in DOCUMENTS for key in SETTING.findall(path.read_text("utf-8"))}
    sections = {key.partition(".")[0] for key in known_keys()}
    assert {key for key in shown if not is_known(key)} <= sections


def test_every_key_of_metric_rows_in_the_documents_exists() -> None:
    table = (ROOT / "docs/run-directory.md").read_text("utf-8").partition("## Rows of `metrics.jsonl`")[2]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    shown = {key for cell in cells for key in re.findall(r"`([a-z_0-9]+)`", cell)}
    added = "".join(path.read_text("utf-8") for path in (ROOT / "lowmem_rl/training").glob("*.py"))
    written = {*NAMES.values(), *MEASURED, "step"}
    assert {key for key in shown if key not in written and f'"{key}"' not in added} == set()
    assert len(shown) > 20  # the table is there and was read


def test_the_glossary_names_every_phase() -> None:
    text = (ROOT / "docs/glossary.md").read_text("utf-8")
    (row,) = [line.replace("log-probs", "logprobs") for line in text.splitlines() if line.startswith("| phase |")]
    assert [phase for phase in get_args(Phase) if phase not in row] == []


def python_blocks() -> list:
    found = [(path, code) for path in DOCUMENTS for code in PYTHON.findall(path.read_text("utf-8"))]
    return [
        pytest.param(path, code, id=f"{path.relative_to(ROOT)}: {code.strip().splitlines()[-1]}")
        for path, code in found
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("document", "code"), python_blocks())
def test_a_python_block_runs(document: Path, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, document, "exec"), {"__name__": "shown"})


def test_the_readme_is_short() -> None:
    text = CODE.sub("", (ROOT / "README.md").read_text("utf-8"))
    prose = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
    assert len(prose.split()) <= 700
    sentences = re.split(r"[.:;?!](?:\s|$)|\n\n|\n- | · |·\n", prose)
    assert [sentence for sentence in sentences if len(sentence.split()) > 30] == []


def test_the_site_has_every_page_and_no_broken_link(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages <= {path.parent.name for path in (tmp_path / "site").glob("*/index.html")} | {"index"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_exist(document):
    targets = [link["target"] or link["source"] for link in LINK.finditer(document.read_text("utf-8"))]
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_generated_blocks_are_current():
    check = subprocess.run(
        [sys.executable, ROOT / "scripts/sync_docs.py", "--check"], capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stdout + check.stderr
