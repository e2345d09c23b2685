"""The package's own sources as the guards read them: nothing is imported or run."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted((SOURCE / "fromnoise").rglob("*.py"))}


@cache  # of a tree and of the graph none that asks changes anything
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(text_tree: ast.Module, module: str, is_package: bool = False, typing_too: bool = False) -> set[str]:
    """Names of the modules of this package that a module imports, at its top or inside functions.

    Imports under `if TYPE_CHECKING:` are left out unless `typing_too`: they do not happen.
    """
    skipped: set[int] = set()
    for node in ast.walk(text_tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not typing_too:
            skipped.update(id(inner) for statement in node.body for inner in ast.walk(statement))
    found: set[str] = set()
    for node in ast.walk(text_tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".") if is_package else module.split(".")[:-1]
                base = ".".join(parents[: len(parents) - node.level + 1] + ([base] if base else []))
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                found.add(whole if whole in MODULES else base)
    return {name for name in found if name.split(".")[0] == "fromnoise"}


@cache
def graph(typing_too: bool = False) -> dict[str, set[str]]:
    return {name: imports(tree(path), name, path.name == "__init__.py", typing_too) for name, path in MODULES.items()}


def reachable(edges: dict[str, set[str]], start: str) -> set[str]:
    """Every module that importing `start` may import, sooner or later, packages' own files included."""
    seen, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        parents = [name.rsplit(".", depth)[0] for depth in range(1, name.count("."))]
        waiting += [*edges.get(name, ()), *parents]
    return seen
