"""Measures the package as a reader meets it: python docs/house.py [FOLDER].

Reads the sources with `ast` only; nothing is imported. `make house` runs it.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

PACKAGE = Path(__file__).parents[1] / "src" / "viva_server"
ENTRIES = {
    "a chat request": "api.chat",
    "a webhook": "api.webhook",
    "the worker": "whatsapp.conversation.worker",
}
FULL_ROOM = 12  # files
SMALL = 60  # lines

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DOCUMENTED = (ast.Module, ast.ClassDef, *_FUNCTIONS)
_NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE,
    tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
}  # fmt: skip


@dataclass(frozen=True)
class Module:
    """A file of the package; `functions` are the lines of each, without docstrings."""

    name: str
    path: Path
    lines: int
    code: int
    functions: list[int]
    imports: frozenset[str]


def read_package(folder: Path) -> dict[str, Module]:
    """Read all modules below a folder, by their dotted names."""
    paths = {_name(folder, path): path for path in sorted(folder.rglob("*.py"))}
    return {name: _read(name, path, paths.keys()) for name, path in paths.items()}


def _name(folder: Path, path: Path) -> str:
    words = (folder.name, *path.relative_to(folder).with_suffix("").parts)
    return ".".join(word for word in words if word != "__init__")


def _read(name: str, path: Path, known: Iterable[str]) -> Module:
    text = path.read_text()
    tree = ast.parse(text)
    documented = _docstring_lines(tree)
    functions = [
        len(set(range(node.lineno, (node.end_lineno or node.lineno) + 1)) - documented)
        for node in ast.walk(tree)
        if isinstance(node, _FUNCTIONS)
    ]
    found = set(_imported(tree, set(known))) - {name}
    code = len(_code_lines(text) - documented)
    return Module(name, path, text.count("\n"), code, functions, frozenset(found))


def _code_lines(text: str) -> set[int]:
    return {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in _NO_CODE
        for line in range(token.start[0], token.end[0] + 1)
    }


def _docstring_lines(tree: ast.Module) -> set[int]:
    """Return the lines of docstrings, those of attributes too."""
    return {
        line
        for node in ast.walk(tree)
        if isinstance(node, _DOCUMENTED)
        for item in node.body
        if isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant)
        for line in range(item.lineno, (item.end_lineno or item.lineno) + 1)
    }


def _imported(tree: ast.Module, known: set[str]) -> Iterator[str]:
    """Yield the modules that are imported by name, not the packages around them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from inner & known
            if inner - known:
                yield node.module


def reachable(modules: dict[str, Module], entry: str) -> set[str]:
    """Return a module and all that it imports, directly or not."""
    found: set[str] = set()
    left = [entry]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left.extend(modules[name].imports)
    return found


def report(modules: dict[str, Module], package: str) -> Iterator[str]:
    """Yield the lines of the table."""
    code = [module.code for module in modules.values()]
    functions = [n for module in modules.values() for n in module.functions]
    fan_out = max(modules.values(), key=lambda module: len(module.imports))
    importers = Counter(n for module in modules.values() for n in module.imports)
    small = [
        name
        for name, module in modules.items()
        if module.lines < SMALL and importers[name] == 1
    ]
    files = Counter(module.path.parent.name for module in modules.values())
    full = [f"{room} {n}" for room, n in files.most_common() if n > FULL_ROOM]
    lines = [module.lines for module in modules.values()]
    p90 = quantiles(functions, n=10)[-1]
    yield f"Python files: {len(modules)}"
    yield f"code lines without blanks, comments, docstrings: {sum(code)}"
    yield f"median / largest file: {median(lines):.0f} / {max(lines)}"
    middle, most = median(functions), max(functions)
    yield f"function median / p90 / max: {middle:.0f} / {p90:.0f} / {most}"
    for what, name in ENTRIES.items():
        if (entry := f"{package}.{name}") in modules:
            yield f"modules loaded below {what}: {len(reachable(modules, entry))}"
    yield f"largest fan-out: {len(fan_out.imports)} ({fan_out.name})"
    yield f"rooms with more than {FULL_ROOM} files: {', '.join(full) or 'none'}"
    yield f"modules under {SMALL} lines with one importer: {len(small)}"
    yield from (f"  {name}" for name in small)
    yield "files and code lines of each room:"
    for room, n in sorted(files.items()):
        of = [m.code for m in modules.values() if m.path.parent.name == room]
        yield f"  {room}: {n}, {sum(of)}"


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE
    for line in report(read_package(folder), folder.name):
        print(line)  # noqa: T201 - it is what the script is for
