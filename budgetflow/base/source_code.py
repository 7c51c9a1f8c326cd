"""The source behind an import path, so that a result knows the code that it was found with.

What counts is the code of the module and of the modules of the same package or folder that it
imports, directly or not, wherever in the file. Comments, docstrings and formatting do not count.
What a module imports under a name that is made up while running is not seen.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import budgetflow
from budgetflow.base.disk_cache import kept
from budgetflow.base.import_path import import_object

# Folders of installed packages: there, only modules of the same package count.
_INSTALLED = tuple(
    Path(folder).resolve() for folder in {*sysconfig.get_paths().values(), *site.getsitepackages()}
)
# The parts of budgetflow that only read what a study found.
_READERS = ("results", "cli", "launch.py", "report.py", "show.py", "check.py")


def source_digests(path: str, field: str) -> dict[str, str]:
    """The code behind an import path: module name to digest.

    Args:
        path: such as "my_lab.models.ResNet".
        field: the config field that holds it, for error messages.

    Raises:
        ConfigError: there is no such object.
    """
    found = import_object(path, field, of_type=object)
    # Where it is defined, which may not be where it is imported from.
    module, name = getattr(found, "__module__", None), getattr(found, "__qualname__", "")
    if module not in sys.modules or getattr(sys.modules[module], name, None) is not found:
        module = path.rpartition(".")[0]
    return dict(_digests(module))


@functools.cache
def framework_source() -> dict[str, str]:
    """The version of budgetflow, and a digest of its code but for what only reads results."""
    package = Path(budgetflow.__file__).parent
    files = {
        str(file.relative_to(package)): file.read_bytes()
        for file in sorted(package.rglob("*.py"))
        if file.relative_to(package).parts[0] not in _READERS
    }
    # To parse a package takes half a second; to see that it is still the same none.
    content = hashlib.sha256(repr(files).encode()).hexdigest()
    source = kept("source_digest", content, lambda: _digest_of_all(files))
    return {"version": budgetflow.__version__, "source": source}


def _digest_of_all(files: dict[str, bytes]) -> str:
    """A digest of the code of some files."""
    digest = hashlib.sha256()
    for name, text in files.items():
        digest.update(f"{name}\n{_digest(ast.parse(text))}".encode())
    return digest.hexdigest()[:16]


@functools.cache  # A module is imported once: its code in this process stays the same.
def _digests(module: str) -> tuple[tuple[str, str], ...]:
    digests: dict[str, str] = {}
    waiting = [module]
    start = _spec(module)
    while waiting:
        name = waiting.pop()
        spec = _spec(name)
        if name in digests or spec is None or start is None or not _belong_together(start, spec):
            continue
        assert spec.origin is not None
        content = Path(spec.origin).read_bytes()
        if not spec.origin.endswith(".py"):  # an extension module
            digests[name] = hashlib.sha256(content).hexdigest()[:16]
            continue
        tree = ast.parse(content)
        digests[name] = _digest(tree)
        is_package = spec.submodule_search_locations is not None
        waiting += _imports(tree, name if is_package else name.rpartition(".")[0])
    return tuple(sorted(digests.items()))


def _spec(name: str) -> ModuleSpec | None:
    """Where a module's file lies, or None if there is no such module or it has no file."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):  # a name of something within a module
        return None
    return spec if spec is not None and spec.has_location else None


def _belong_together(first: ModuleSpec, second: ModuleSpec) -> bool:
    """Whether two modules are of the same package, or lie in the same folder of the user's."""
    if first.name.partition(".")[0] == second.name.partition(".")[0]:
        return True
    root = _root(first)
    return root == _root(second) and not any(root.is_relative_to(folder) for folder in _INSTALLED)


def _root(spec: ModuleSpec) -> Path:
    """The folder that a module's package, or the module itself, lies in."""
    assert spec.origin is not None
    is_package = spec.submodule_search_locations is not None
    return Path(spec.origin).resolve().parents[spec.name.count(".") + is_package]


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """The names of modules that code imports, and of what might be one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _digest(tree: ast.Module) -> str:
    return hashlib.sha256(repr(_code(tree)).encode()).hexdigest()[:16]


def _code(node: Any) -> Any:
    """Code as nested tuples, the same for every version of Python that can parse it."""
    if isinstance(node, ast.AST):
        parts: list[Any] = [type(node).__name__]
        for name, value in ast.iter_fields(node):
            if value is not None and value != []:
                parts.append((name, _code(value)))
        return tuple(parts)
    if isinstance(node, list):
        return tuple([_code(item) for item in node if not _is_docstring(item)])
    return repr(node)


def _is_docstring(node: Any) -> bool:
    """Whether a statement is a bare string, which does nothing."""
    is_bare = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_bare and isinstance(node.value.value, str)
