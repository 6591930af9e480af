"""The floors in docs/architecture.md are the code's: a file imports only from floors below its own."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP_LEVEL = ("asr", "training")
MODULES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("asr/**/*.py"), *ROOT.glob("training/**/*.py"), ROOT / "app.py"]
)


def floors() -> dict[str, int]:
    """Files and folders (with a "/" at the end) of the document, by floor, counted from the lowest."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.partition("\n## Floors\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("    ")]
    found: dict[str, int] = {}
    for floor, line in enumerate(reversed(lines)):
        for entry in re.findall(r"(?:asr|training)/[\w/]*(?:\.py)?|app\.py", line):
            assert entry not in found, f"{entry} is on two floors"
            found[entry] = floor
    return found


FLOORS = floors()


def entry_of(module: str) -> str:
    """The file, or the innermost folder, of the document that a module belongs to."""
    entries = [
        entry for entry in FLOORS if module == entry or (entry[-1] == "/" and module.startswith(entry))
    ]
    assert entries, f"{module} is on no floor of docs/architecture.md"
    return max(entries, key=len)


def imported(module: str) -> Iterator[str]:
    """Our modules that a module imports, in functions too; not for type checkers, nor when it is run."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and re.search("TYPE_CHECKING|__main__", ast.unparse(node.test))
        for inner in ast.walk(node)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    for name in names:
        path = name.replace(".", "/")
        yield from {f"{path}.py", f"{path}/__init__.py"} & set(MODULES)


def is_package(module: str) -> bool:
    """asr/__init__.py and training/__init__.py, which every import of ours loads first."""
    return module in [f"{package}/__init__.py" for package in TOP_LEVEL]


@pytest.mark.parametrize("module", [module for module in MODULES if not is_package(module)])
def test_a_module_imports_from_lower_floors_only(module):
    own = entry_of(module)
    for other in imported(module):
        if is_package(other) or entry_of(other) == own:
            continue
        assert FLOORS[entry_of(other)] < FLOORS[own], f"{module} imports {other}, which is not below it"
        assert not (module.startswith("asr/") and other.startswith("training/")), f"{module} imports {other}"


def test_every_entry_exists():
    for entry in FLOORS:
        assert (ROOT / entry).exists(), f"{entry} of docs/architecture.md does not exist"
