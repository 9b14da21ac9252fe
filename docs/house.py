"""Measures the package as a reader meets it: python docs/house.py [FOLDER].

Reads the sources with `ast` only; nothing is imported. `make house` runs it. It exits
with 1 where the package is beyond `LIMITS`.
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
LIMITS = {
    "Python files": 125,
    "code lines without blanks, comments, docstrings": 17_000,
    "function p90": 25,
    "modules loaded below a chat request": 60,
    "modules loaded below a webhook": 45,
    f"rooms with more than {FULL_ROOM} files": 0,
    f"modules under {SMALL} lines with one importer": 0,
}

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


def full_rooms(modules: dict[str, Module]) -> list[str]:
    """Return the folders that hold too many files, the fullest first."""
    files = Counter(module.path.parent for module in modules.values())
    return [f"{room.name} {n}" for room, n in files.most_common() if n > FULL_ROOM]


def small_modules(modules: dict[str, Module]) -> list[str]:
    """Return the modules that are too small for the one module that uses them."""
    importers = Counter(n for module in modules.values() for n in module.imports)
    return [
        name
        for name, module in modules.items()
        if module.lines < SMALL and importers[name] == 1
    ]


def measure(modules: dict[str, Module], package: str) -> dict[str, int]:
    """Return the figures by the names that `LIMITS` has for some of them."""
    functions = [n for module in modules.values() for n in module.functions]
    lines = [module.lines for module in modules.values()]
    return {
        "Python files": len(modules),
        "code lines without blanks, comments, docstrings": sum(
            module.code for module in modules.values()
        ),
        "file median": round(median(lines)),
        "largest file": max(lines),
        "function median": round(median(functions)),
        "function p90": round(quantiles(functions, n=10)[-1]),
        "largest function": max(functions),
        **{
            f"modules loaded below {what}": len(reachable(modules, entry))
            for what, name in ENTRIES.items()
            if (entry := f"{package}.{name}") in modules
        },
        "largest fan-out": max(len(module.imports) for module in modules.values()),
        f"rooms with more than {FULL_ROOM} files": len(full_rooms(modules)),
        f"modules under {SMALL} lines with one importer": len(small_modules(modules)),
    }


def beyond_limits(figures: dict[str, int]) -> list[str]:
    """Return a sentence for each figure that is above its limit."""
    return [
        f"{name}: {figures[name]}, at most {most}"
        for name, most in LIMITS.items()
        if figures.get(name, 0) > most
    ]


def report(modules: dict[str, Module], package: str) -> Iterator[str]:
    """Yield the lines of the table."""
    yield from (f"{name}: {n}" for name, n in measure(modules, package).items())
    yield from (f"  {name}" for name in full_rooms(modules) + small_modules(modules))
    yield "files and code lines of each room:"
    for room in sorted({module.path.parent for module in modules.values()}):
        code = [m.code for m in modules.values() if m.path.parent == room]
        yield f"  {room.name}: {len(code)}, {sum(code)}"


def _main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE
    modules = read_package(folder)
    print("\n".join(report(modules, folder.name)))  # noqa: T201 - what it is for
    beyond = beyond_limits(measure(modules, folder.name))
    print(*beyond, sep="\n", file=sys.stderr, end="\n" if beyond else "")  # noqa: T201
    return 1 if beyond else 0


if __name__ == "__main__":
    sys.exit(_main())
