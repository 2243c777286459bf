"""Lower floors never import higher ones."""

from __future__ import annotations

import ast
from pathlib import Path

import airtune

ROOT = Path(airtune.__file__).parent
# What each floor may import, besides itself and the foundations.
FOUNDATIONS = {"config", "errors", "keyed"}
MAY_IMPORT = {
    "wire": set(),
    "radio": set(),
    "scheduling": {"radio"},
    "learning": set(),
    "methods": {"learning", "scheduling", "radio", "wire"},
    "federation": {"methods", "learning", "scheduling", "radio", "wire"},
    "report": {"federation"},
    "deploy": {
        "build", "experiment", "fitting", "loading", "planned_seconds", "federation", "methods",
        "learning", "scheduling", "radio", "wire",
    },
    "planning": {
        "build", "planned_seconds", "experiment", "federation", "methods", "learning",
        "scheduling", "radio", "wire",
    },
}  # fmt: skip


def imports(path: Path) -> set[str]:
    """Return the parts of airtune that a file imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("airtune"):
            parts = (node.module or "").split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("airtune.")}
    return found


def test_every_floor_imports_only_what_lies_below():
    for floor, below in MAY_IMPORT.items():
        files = list((ROOT / floor).rglob("*.py"))
        assert files
        for file in files:
            wrong = imports(file) - below - FOUNDATIONS - {floor}
            assert not wrong, f"{file.relative_to(ROOT)} imports {wrong}"


def test_the_foundations_import_nothing_of_the_house():
    for name in FOUNDATIONS:
        assert imports(ROOT / f"{name}.py") <= FOUNDATIONS


def test_the_radio_is_free_of_torch():
    for file in (ROOT / "radio").rglob("*.py"):
        names = {
            alias.name.split(".")[0]
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert "torch" not in names
