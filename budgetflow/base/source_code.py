"""The source behind a result: a user's own code by import path, and the parts of budgetflow.

Of a user's code, the module and the modules of the same package or folder that it imports count,
directly or not, wherever in the file. What a module imports under a name that is made up while
running is not seen.

Of budgetflow's code, the content of modules counts and how they import each other; their names and
places do not. The key of states is all of ``engine/`` and what that imports
(:func:`framework_source`), but for what a config names there, which counts when one names it. All
else, as the policy of a kind of study, counts where it is named (:func:`source_digests`).

Comments, docstrings and formatting never count. Of budgetflow's code, neither do the texts of
``raise`` statements, modules that hold nothing but the names of others, nor those that are marked
by ``CHANGES_NO_RESULT = True``: sentences, errors and times, from which no result follows.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, NamedTuple

from budgetflow.base.disk_cache import cached_text
from budgetflow.base.import_path import import_object

OWN = "budgetflow"
PACKAGE = Path(__file__).parents[1]
# Folders of installed packages: there, only modules of the same package count.
_INSTALLED = tuple(
    Path(folder).resolve() for folder in {*sysconfig.get_paths().values(), *site.getsitepackages()}
)
# What configs name of the engine: models, tasks, data sets, augmentation.
_NAMED_BY_CONFIGS = (
    *("models", "tasks"),
    *("data.augment", "data.diabetes", "data.fashion_mnist", "data.text"),
)

# What carries the decisions of any kind of study out.
_CARRIES_OUT = tuple(
    f"{OWN}.studies.{name}" for name in ("study", "run.own_devices", "run.completion")
)


class _Module(NamedTuple):
    """A module of budgetflow.

    Attributes:
        content: a digest of its code without the imports of other modules of budgetflow.
        imports: the names of those modules, each with what is imported from it.
        counts: whether it can change a result.
        is_names: whether it holds nothing but the names of others.
    """

    content: str
    imports: list[tuple[str, str]]
    counts: bool
    is_names: bool


def source_digests(path: str, field: str) -> dict[str, str]:
    """The code behind an import path: module name to digest.

    Modules of budgetflow that the key of states lacks have one digest together, "budgetflow".

    Args:
        path: such as "my_lab.models.ResNet".
        field: the config field that holds it, for error messages.

    Raises:
        ConfigError: there is no such object.
    """
    named = import_object(path, field, of_type=object)
    # Where it is defined, which may not be where it is imported from.
    module, name = getattr(named, "__module__", None), getattr(named, "__qualname__", "")
    if module not in sys.modules or getattr(sys.modules[module], name, None) is not named:
        module = path.rpartition(".")[0]
    return dict(_digests(module))


def policy_digests(function: Any, path: str | None) -> dict[str, str]:
    """The code that decides in a kind of study, and carries decisions out: module name to digest.

    Args:
        function: its policy.
        path: the import path of the kind, for one of a user's own.

    Raises:
        ConfigError: there is no such object.
    """
    while isinstance(function, functools.partial):
        function = function.func
    modules = [function.__module__]
    if path is not None:
        import_object(path, "config.kind", of_type=object)
        modules.append(path.rpartition(".")[0])
    return dict(_digests(*modules, also=_CARRIES_OUT))


@functools.cache  # The code of a process stays what it is.
def framework_source() -> dict[str, str]:
    """A digest of the part of budgetflow that computes states."""
    return {"source": _digest_of(_closure(_engine()))}


def _engine() -> Iterator[str]:
    """The modules of ``engine/`` but for those that configs name."""
    for name in _own_modules():
        part = name.removeprefix(f"{OWN}.engine.")
        if part != name and not f"{part}.".startswith(tuple(f"{n}." for n in _NAMED_BY_CONFIGS)):
            yield name


def _closure(modules: Iterable[str]) -> set[str]:
    """Modules of budgetflow and those that they import, directly or not."""
    own, closure, waiting = _own_modules(), set(), list(modules)
    while waiting:
        name = waiting.pop()
        # The package itself holds nothing but the names of others.
        if name not in closure and name != OWN and own[name].counts:
            closure.add(name)
            waiting += [imported for imported, _ in own[name].imports]
    return {name for name in closure if not own[name].is_names}


def _digest_of(modules: Iterable[str]) -> str:
    """A digest of the content of modules of budgetflow, and of how they import each other."""
    own = _own_modules()
    links = [
        (own[name].content, sorted((own[other].content, what) for other, what in imports))
        for name in modules
        for imports in [[i for i in own[name].imports if own[i[0]].counts]]
    ]
    return _hash(sorted(links))


def _hash(code: Any) -> str:
    return hashlib.sha256(repr(code).encode()).hexdigest()[:16]


@functools.cache  # The code of a process stays what it is.
def _own_modules() -> dict[str, _Module]:
    """All modules of budgetflow by name."""
    files = {
        ".".join([OWN, *path.relative_to(PACKAGE).with_suffix("").parts]): path.read_bytes()
        for path in sorted(PACKAGE.rglob("*.py"))
    }
    # To parse a package takes half a second; to see that it is still the same none.
    content = hashlib.sha256(repr(files).encode()).hexdigest()
    parsed = json.loads(cached_text("source_digest", content, lambda: json.dumps(_parsed(files))))
    return {name: _Module(*module) for name, module in parsed.items()}


def _parsed(files: dict[str, bytes]) -> dict[str, _Module]:
    """The modules in some files, by name."""
    names = {name.removesuffix(".__init__") for name in files}
    modules = {}
    for file, text in files.items():
        tree = ast.parse(text)
        imports: list[tuple[str, str]] = []
        code = _code(tree, names, imports)
        counts = not any(
            isinstance(node, ast.Assign) and ast.unparse(node) == "CHANGES_NO_RESULT = True"
            for node in tree.body
        )
        is_names = not [node for node in tree.body if not _is_of_names(node, names)]
        name = file.removesuffix(".__init__")
        modules[name] = _Module(_hash(code), sorted(imports), counts, is_names)
    return modules


def _is_of_names(node: ast.stmt, names: set[str]) -> bool:
    """Whether a statement is a docstring, an import of budgetflow's, or ``__all__``."""
    if isinstance(node, ast.ImportFrom):
        return node.module in names
    is_all = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    return is_all or _is_docstring(node)


def _own_imports(node: ast.Import | ast.ImportFrom, names: set[str]) -> Iterator[tuple[str, str]]:
    """The modules of budgetflow that a statement imports, each with what is imported from it."""
    base = node.module if isinstance(node, ast.ImportFrom) else None
    for alias in node.names:
        full = f"{base}.{alias.name}" if base else alias.name
        module = full if full in names else base
        if module in names:
            # A module under a name of its own is that module, whatever it is called elsewhere.
            what = "" if module == full else alias.name
            yield module, f"{what} as {alias.asname or alias.name}"


def _without_texts(node: ast.Raise) -> ast.Raise:
    """A statement that raises an error, with nothing in place of its texts."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            inner.value = ""
    return node


@functools.cache  # A module is imported once: its code in this process stays the same.
def _digests(*modules: str, also: tuple[str, ...] = ()) -> tuple[tuple[str, str], ...]:
    """The code of modules and of what they import; of ``also``, budgetflow's, without imports."""
    digests: dict[str, str] = {}
    own: set[str] = set()
    waiting = list(modules)
    starts = [_spec(module) for module in modules]
    while waiting:
        name = waiting.pop()
        if name.partition(".")[0] == OWN:
            own |= {name} & _own_modules().keys()
            continue
        spec = _spec(name)
        if name in digests or spec is None or not any(_belong_together(s, spec) for s in starts):
            continue
        assert spec.origin is not None
        content = Path(spec.origin).read_bytes()
        if not spec.origin.endswith(".py"):  # an extension module
            digests[name] = hashlib.sha256(content).hexdigest()[:16]
            continue
        tree = ast.parse(content)
        digests[name] = _hash(_code(tree))
        is_package = spec.submodule_search_locations is not None
        waiting += _imports(tree, name if is_package else name.rpartition(".")[0])
    if others := (_closure(own) | {*also}) - _closure(_engine()):
        digests[OWN] = _digest_of(others)
    return tuple(sorted(digests.items()))


def _spec(name: str) -> ModuleSpec | None:
    """Where a module's file lies, or None if there is no such module or it has no file."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):  # a name of something within a module
        return None
    return spec if spec is not None and spec.has_location else None


def _belong_together(first: ModuleSpec | None, second: ModuleSpec) -> bool:
    """Whether two modules are of the same package, or lie in the same folder of the user's."""
    if first is None:
        return False
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


def _code(
    node: Any, names: set[str] | None = None, imports: list[tuple[str, str]] | None = None
) -> Any:
    """Code as nested tuples, the same for every version of Python that can parse it.

    Args:
        node: the code.
        names: of code of budgetflow, the modules of budgetflow.
        imports: where its imports of these are added, which are left out of the code.
    """
    if names is not None and imports is not None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            if own := list(_own_imports(node, names)):
                imports += own
                return None
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return None
        elif isinstance(node, ast.Raise):
            node = _without_texts(node)
    if isinstance(node, ast.AST):
        fields = [(n, v) for n, v in ast.iter_fields(node) if v is not None and v != []]
        return (type(node).__name__, *((n, _code(v, names, imports)) for n, v in fields))
    if isinstance(node, list):
        return tuple([_code(item, names, imports) for item in node if not _is_docstring(item)])
    return repr(node)


def _is_docstring(node: Any) -> bool:
    """Whether a statement is a bare string, which does nothing."""
    is_bare = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_bare and isinstance(node.value.value, str)
