"""How our modules depend on each other, and how often one name means two things.

Imports within functions count, those for type checkers alone do not.
"""

import ast
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_IMPORTED_BY_TRAIN = 20
MOST_SHARED_NAMES = 5
"""Names of modules that two rooms may have, and as many names of classes."""
PACKAGES = (ROOT / "lowmem_rl", ROOT / "lowmem_rl_bench", ROOT / "cli" / "lowmem_rl_cli")


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def our_modules() -> Mapping[str, ast.Module]:
    found = {
        module_name(path, package.parent): ast.parse(path.read_text("utf-8"))
        for package in PACKAGES
        for path in package.rglob("*.py")
    }
    assert len(found) > 300
    return found


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yields the statements below a node, without those that only a type checker reads."""
    is_for_types = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
    for child in node.orelse if isinstance(node, ast.If) and is_for_types else ast.iter_child_nodes(node):
        if not isinstance(child, ast.expr):
            yield child
            yield from statements(child)


def imported(name: str, modules: Mapping[str, ast.Module]) -> set[str]:
    """Returns which of the modules one of them imports."""
    found: set[str] = set()
    for node in statements(modules[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= parts if parts <= modules.keys() else parts | {str(node.module)}
    return (found & modules.keys()) - {name}


def cycle_in(modules: Mapping[str, ast.Module]) -> list[str]:
    """Returns modules each of which imports the one before it, the last one being the first; [] if there are none."""
    try:
        TopologicalSorter({name: imported(name, modules) for name in modules}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_import_each_other() -> None:
    assert cycle_in(our_modules()) == []


def test_the_page_of_a_whole_run_imports_few_modules() -> None:
    assert len(imported("lowmem_rl.entrypoints.train", our_modules())) <= MOST_IMPORTED_BY_TRAIN


def shared(names: Iterable[str]) -> list[str]:
    return sorted(name for name, times in Counter(names).items() if times > 1)


def test_few_modules_have_the_name_of_another() -> None:
    stems = (path.stem for package in PACKAGES for path in package.rglob("*.py"))
    found = shared(stem for stem in stems if not stem.startswith("__"))
    assert len(found) <= MOST_SHARED_NAMES, found


def test_few_classes_have_the_name_of_another() -> None:
    nodes = (node for tree in our_modules().values() for node in statements(tree))
    found = shared(node.name for node in nodes if isinstance(node, ast.ClassDef))
    assert len(found) <= MOST_SHARED_NAMES, found


@pytest.mark.parametrize(
    ("source", "cycle"),
    [
        ("import lowmem_rl.b", True),
        ("def f():\n    from lowmem_rl.b import g", True),
        ("if True:\n    from lowmem_rl import b, errors", True),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from lowmem_rl.b import g", False),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    from lowmem_rl import b", True),
    ],
)
def test_a_cycle_is_found_wherever_its_imports_are(source: str, cycle: bool) -> None:
    sources = {"lowmem_rl": "", "lowmem_rl.a": source, "lowmem_rl.b": "from lowmem_rl.a import f"}
    assert bool(cycle_in({name: ast.parse(text) for name, text in sources.items()})) is cycle
