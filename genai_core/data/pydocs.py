"""The documentation of this interpreter's standard library as documents.

    textwrap.shorten(text, width, **kwargs)

    Collapse and truncate the given text to fit in the given width.
    ...

Python source is read with `ast` and never imported here; what is written in C, and every signature, comes from a
sandboxed child (`inspection`). The language reference is read from `pydoc_data/topics.py` as a literal. Names are those
a person would write: `str.join`, not `builtins.str.join`; `os.stat`, not `posix.stat`; `struct.pack`, not `_struct.pack`.
"""

from __future__ import annotations

import ast
import builtins
import copy
import hashlib
import inspect
import platform
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genai_core.config.data import PydocsSource
from genai_core.data.documents import Document
from genai_core.data.inspection import inspect_modules
from genai_core.data.links import link_names
from genai_core.data.sources.result import ReadResult
from genai_core.errors import DataError

# Neither read nor imported: fixtures, demonstrations, and twins of `os`.
SKIPPED_MODULES = frozenset(["idlelib", "lib2to3", "nt", "posix", "pydoc_data", "test", "this", "turtledemo"])
# Read, never imported: they open a window or a browser, or need what is not installed everywhere.
NOT_IMPORTED = frozenset(["antigravity", "ensurepip", "msilib", "tkinter", "turtle"])
SKIPPED_PARTS = frozenset(("test", "tests", "idle_test", "site-packages", "__pycache__"))

LONGEST_DEFAULT = 40
MEMBER_KINDS = {"function": "method", "property": "property"}

Objects = dict[str, list[list[Any]] | None]
"""Dotted name -> [[parameter, kind, has_default], ...]; None where the signature is unknown."""


@dataclass(frozen=True, slots=True)
class Found:
    """One documented object."""

    name: str
    kind: str  # module, class, function, method, property, topic
    module: str
    doc: str
    signature: str = ""


@dataclass(slots=True)
class Parsed:
    """What `ast` knows of one module."""

    documented: dict[str, Found] = field(default_factory=dict)
    defined: dict[str, ast.arguments | None] = field(default_factory=dict)
    """Every definition with its arguments; those of a class are its `__init__`'s, None where it has none."""


def read(source: PydocsSource) -> ReadResult:
    """Return the documents. Raises DataError if this Python has no standard library source."""
    return read_with_objects(source)[0]


def read_with_objects(source: PydocsSource) -> tuple[ReadResult, Objects]:
    """Return the documents, sorted by name, and every public name that can be reached with its parameters.

    Parameters are those of a call through the dotted name: `textwrap.TextWrapper.fill` begins with `self`.
    """
    modules = list_modules(source.max_modules)
    parsed = Parsed()
    for name, path in modules.items():
        if path is not None:
            _parse_module(name, path, parsed)
    imported = sorted(
        {"builtins", *(["os.path"] if "os" in modules else [])}
        | {name for name in modules if name.partition(".")[0] not in NOT_IMPORTED}
    )
    told = inspect_modules(imported)
    reachable = {_plain(name): row for module in imported for name, row in told.get(module, {}).items()}

    found = {name: _with_signature(entry, reachable, parsed) for name, entry in parsed.documented.items()}
    for entry in _compiled(reachable, modules, parsed):
        found.setdefault(entry.name, entry)
    documents = [_document(found[name]) for name in sorted(found)]
    if source.topics:
        documents += [_document(topic) for topic in read_topics()]
    unseen = {name for name in parsed.defined if _module_of(name, modules) not in told}
    return ReadResult(link_names(documents), len(documents)), _objects(reachable, parsed, unseen)


def list_modules(most: int = 0) -> dict[str, Path | None]:
    """Return the public modules in name order with their source file, None for those written in C."""
    library = _library()
    found: dict[str, Path | None] = {}
    for top in sorted(sys.stdlib_module_names):
        if top.startswith("_") or top in SKIPPED_MODULES:
            continue
        if (library / top / "__init__.py").exists():
            for path in sorted((library / top).rglob("*.py")):
                parts = path.relative_to(library).with_suffix("").parts
                parts = parts[:-1] if parts[-1] == "__init__" else parts
                if not any(part.startswith("_") or part in SKIPPED_PARTS for part in parts):
                    found[".".join(parts)] = path
        else:
            path = library / f"{top}.py"
            found[top] = path if path.exists() else None
    names = sorted(found)
    return {name: found[name] for name in (names[:most] if most else names)}


def digest() -> str:
    """Return the digest of what `read` would read: Python's version and platform, the modules and their source."""
    sha = hashlib.sha256()
    sha.update(f"{platform.python_implementation()} {platform.python_version()} {sys.platform}\n".encode())
    # two builds of one version may lack different extensions (sqlite3, readline), whose documentation is then missing
    extensions = {path.name.partition(".")[0] for path in (_library() / "lib-dynload").glob("*")}
    sha.update(" ".join(sorted({*extensions, *sys.builtin_module_names})).encode())
    for name, path in list_modules().items():
        data = path.read_bytes() if path is not None else b"compiled"
        sha.update(f"{name} {hashlib.sha256(data).hexdigest()}\n".encode())
    topics = _topics_file()
    sha.update(topics.read_bytes() if topics.exists() else b"no topics")
    return sha.hexdigest()


def read_topics() -> Iterator[Found]:
    """Yield the chapters of the language reference, in name order; none where this Python comes without them."""
    path = _topics_file()
    if not path.exists():
        return
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "topics":
            for name, text in sorted(ast.literal_eval(node.value).items()):
                yield Found(name, "topic", f"topics.{name}", text.strip())


def first_sentence(doc: str) -> str:
    """Return the first sentence of a docstring, in one line; lines that only repeat the signature are passed over."""
    for block in re.split(r"\n\s*\n", doc.strip()):
        lines = block.splitlines()
        while lines and re.match(r"^[\w.]+\(.*\)(\s*->.*)?$", lines[0].strip()):
            lines = lines[1:]
        text = " ".join(" ".join(lines).split())
        if text:
            end = re.search(r"(?<!\be\.g)(?<!\bi\.e)(?<!\betc)(?<!\bvs)[.!?](?=\s|$)", text)
            return text[: end.end()] if end else text
    return ""


def _library() -> Path:
    library = Path(sysconfig.get_path("stdlib"))
    if not (library / "os.py").exists():
        raise DataError(
            f"This Python ({sys.executable}) has no standard library source in {str(library)!r}, so source.kind='pydocs' "
            "has nothing to read. Use a Python with its source files, or another source."
        )
    return library


def _topics_file() -> Path:
    return _library() / "pydoc_data" / "topics.py"


def _parse_module(name: str, path: Path, parsed: Parsed) -> None:
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:
        return  # files of lib2to3 style fixtures are not Python 3; they document nothing
    _keep(parsed, Found(name, "module", name, ast.get_docstring(tree) or ""))
    _walk(tree.body, name, name, False, parsed)


def _walk(body: list[ast.stmt], prefix: str, module: str, in_class: bool, parsed: Parsed) -> None:
    for node in body:
        if isinstance(node, (ast.If, ast.Try, ast.With)):  # definitions under a platform check or an import guard
            for part in ("body", "orelse", "handlers", "finalbody"):
                for inner in getattr(node, part, []):
                    _walk(
                        inner.body if isinstance(inner, ast.ExceptHandler) else [inner],
                        prefix,
                        module,
                        in_class,
                        parsed,
                    )
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            dotted = f"{prefix}.{node.name}"
            if isinstance(node, ast.ClassDef):
                kind = "class"
                parsed.defined.setdefault(dotted, _constructor(node))
                _walk(node.body, dotted, module, True, parsed)
            else:
                kind = "property" if _is_property(node) else "method" if in_class else "function"
                parsed.defined.setdefault(dotted, node.args)
            _keep(parsed, Found(dotted, kind, module, ast.get_docstring(node) or ""))


def _constructor(node: ast.ClassDef) -> ast.arguments | None:
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef) and inner.name == "__init__" and inner.args.args:
            arguments = inner.args
            return ast.arguments(
                posonlyargs=arguments.posonlyargs,
                args=arguments.args[1:],  # without self: that is how a class is called
                vararg=arguments.vararg,
                kwonlyargs=arguments.kwonlyargs,
                kw_defaults=arguments.kw_defaults,
                kwarg=arguments.kwarg,
                defaults=arguments.defaults,
            )
    return None


def _is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("property" in ast.unparse(mark) or ".setter" in ast.unparse(mark) for mark in node.decorator_list)


def _keep(parsed: Parsed, found: Found) -> None:
    if found.doc.strip():
        parsed.documented.setdefault(found.name, found)


def _with_signature(found: Found, reachable: Mapping[str, Any], parsed: Parsed) -> Found:
    if found.kind not in ("class", "function", "method"):
        return found
    row, arguments = reachable.get(found.name, {}), parsed.defined.get(found.name)
    signature = row.get("signature", "")
    if arguments is not None:
        names = [name for name, _, _ in _ast_parameters(arguments)]
        # the source's own words, unless a decorator or a bound class changes what is called
        if "parameters" not in row or names == [name for name, _, _ in row["parameters"]]:
            signature = _show_arguments(arguments)
    return Found(found.name, found.kind, found.module, found.doc, signature)


def _show_arguments(arguments: ast.arguments) -> str:
    """Return the arguments as in the source, without annotations, long defaults as '...'."""
    plain = copy.deepcopy(arguments)
    for each in (*plain.posonlyargs, *plain.args, *plain.kwonlyargs, plain.vararg, plain.kwarg):
        if each is not None:
            each.annotation = None
    plain.defaults = [_shorten(each) for each in plain.defaults]
    plain.kw_defaults = [None if each is None else _shorten(each) for each in plain.kw_defaults]
    return f"({ast.unparse(plain)})"


def _shorten(default: ast.expr) -> ast.expr:
    return default if len(ast.unparse(default)) <= LONGEST_DEFAULT else ast.Constant(...)


def _compiled(reachable: Mapping[str, Any], modules: Mapping[str, Path | None], parsed: Parsed) -> Iterator[Found]:
    """Yield the documented objects that have no Python definition in a public module, each under one name."""
    names: dict[str, list[str]] = {}
    members: dict[str, list[str]] = {}
    for name, row in reachable.items():
        if row.get("inherited") is False and row["doc"] and row["kind"] in MEMBER_KINDS:
            members.setdefault(name.rpartition(".")[0], []).append(name)
        if row["kind"] == "module":
            if name in modules and modules[name] is None and row["doc"]:
                yield Found(name, "module", name, row["doc"])
        elif "listed" in row and row["kind"] in ("class", "function") and row["doc"]:
            home = _plain(row["home"]) or name
            if home not in parsed.defined and _module_of(name, modules) is not None:
                names.setdefault(home, []).append(name)
    for home, known in sorted(names.items()):
        name = min(known, key=lambda each: _strangeness(each, home, reachable))
        row, module = reachable[name], _module_of(name, modules) or ""
        yield Found(name, row["kind"], module, row["doc"], row.get("signature", ""))
        for member in members.get(name, ()) if row["kind"] == "class" else ():
            row = reachable[member]
            yield Found(member, MEMBER_KINDS[row["kind"]], module, row["doc"], row.get("signature", ""))


def _strangeness(name: str, home: str, reachable: Mapping[str, Any]) -> tuple[bool, bool, bool, int, str]:
    """Return what orders the names of one object: its own, the public twin of a private module's, an exported one."""
    return name != home, name != home.lstrip("_"), not reachable[name].get("listed"), name.count("."), name


def _module_of(name: str, modules: Mapping[str, Path | None]) -> str | None:
    """Return the module that holds an object, 'builtins' for a bare name; None if it is not one of `modules`."""
    head = name.rpartition(".")[0]
    while head:
        if head in modules:
            return head
        head = head.rpartition(".")[0]
    return "builtins" if "builtins" in modules and _is_builtin(name) else None


def _is_builtin(name: str) -> bool:
    return hasattr(builtins, name.partition(".")[0])


def _plain(name: str) -> str:
    return name.removeprefix("builtins.")


def _objects(reachable: Mapping[str, Any], parsed: Parsed, unseen: set[str]) -> Objects:
    objects: Objects = {}
    for name in unseen:
        arguments = parsed.defined[name]
        objects[name] = None if arguments is None else [list(each) for each in _ast_parameters(arguments)]
    for name, row in reachable.items():
        objects[name] = row.get("parameters")
        if _is_builtin(name) and "home" in row:
            objects[f"builtins.{name}"] = row.get("parameters")
    return dict(sorted(objects.items()))


def _ast_parameters(arguments: ast.arguments) -> Iterator[tuple[str, str, bool]]:
    positional = [*arguments.posonlyargs, *arguments.args]
    for index, each in enumerate(positional):
        kind = "POSITIONAL_ONLY" if index < len(arguments.posonlyargs) else "POSITIONAL_OR_KEYWORD"
        yield each.arg, kind, index >= len(positional) - len(arguments.defaults)
    if arguments.vararg:
        yield arguments.vararg.arg, "VAR_POSITIONAL", False
    for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield each.arg, "KEYWORD_ONLY", default is not None
    if arguments.kwarg:
        yield arguments.kwarg.arg, "VAR_KEYWORD", False


def _document(found: Found) -> Document:
    doc = inspect.cleandoc(found.doc)
    topic = found.kind == "topic"
    return Document(
        doc_id=f"topic:{found.name}" if topic else found.name,
        group=".".join(found.module.split(".")[:2]),
        title=found.name,
        text=doc if topic else f"{found.name}{found.signature}\n\n{doc}",
        meta={
            "object": found.name,
            "signature": found.signature,
            "kind": found.kind,
            "module": found.module,
            "summary": first_sentence(doc),
        },
    )
