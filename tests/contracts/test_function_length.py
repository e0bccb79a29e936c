"""No function of ours is longer than forty lines, signature and docstring included."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("lowmem_rl", "lowmem_rl_bench", "cli")
MOST_LINES = 40


def too_long(source: str) -> Iterator[str]:
    """Yields name and length of each function that is too long, methods and nested ones too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            if lines > MOST_LINES:
                yield f"{node.name} has {lines} lines"


def test_every_function_has_at_most_forty_lines() -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert len(files) > 300
    assert not [f"{path.relative_to(ROOT)}: {one}" for path in files for one in too_long(path.read_text("utf-8"))]


def test_one_line_more_is_found_in_methods_and_in_functions_within_functions() -> None:
    body = "\n".join("            pass" for _ in range(MOST_LINES - 1))
    source = f"class A:\n    async def outer(self):\n        def inner():\n{body}"
    assert list(too_long(source)) == ["outer has 41 lines"]
    assert list(too_long(source + "\n            pass")) == ["outer has 42 lines", "inner has 41 lines"]
