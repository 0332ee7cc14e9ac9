"""Runs alone in a sandboxed process (`inspection.py`): imports modules and tells what their objects are, as JSON lines.

Only the standard library may be imported here: the process has no path to anything else. One line per module:

    {"module": "math", "objects": {"math.sin": {"kind": "function", "doc": "...", "signature": "(x, /)",
                                                "parameters": [["x", "POSITIONAL_ONLY", false]], "home": "math.sin"}}}
    {"module": "winreg", "error": "ModuleNotFoundError: ..."}
"""

import importlib
import inspect
import json
import os
import resource
import sys
import types
import warnings
from typing import Any

Row = dict[str, Any]

REFUSED_EVENTS = (
    "socket.connect",
    "socket.bind",
    "socket.getaddrinfo",
    "socket.sendto",
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "webbrowser.open",
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# what every class inherits from object says nothing about the class
COMMON_MEMBERS = frozenset(dir(object))


def main() -> None:
    """Read the limits and module names from the command line; write JSON lines to the file descriptor given."""
    order = json.loads(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_CPU, (order["cpu_seconds"], order["cpu_seconds"]))
    resource.setrlimit(resource.RLIMIT_AS, (order["memory_bytes"], order["memory_bytes"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)  # a module that prints when imported must not print into the answer
    sys.addaudithook(refuse)
    warnings.simplefilter("ignore")
    for name in order["modules"]:
        try:
            row = {"module": name, "objects": describe_module(name)}
        except BaseException as error:  # a module may raise anything, SystemExit included; it is told, not hidden
            row = {"module": name, "error": f"{type(error).__name__}: {error}"[:300]}
        answer.write(json.dumps(row, sort_keys=True) + "\n")
        answer.flush()
    os._exit(0)  # not sys.exit: handlers that the imported modules registered have no business here


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Stop what importing a module has no reason to do."""
    if event in REFUSED_EVENTS:
        raise PermissionError(f"{event} is not allowed while documentation is read")
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING and arguments[0] != os.devnull:
        raise PermissionError(f"writing {arguments[0]!r} is not allowed while documentation is read")


def describe_module(name: str) -> Row:
    """Return every public object that can be reached as `name.object` or `name.Class.member`."""
    module = importlib.import_module(name)
    found: Row = {name: {"kind": "module", "doc": text_of(module), "home": name}}
    for attribute in sorted(dir(module)):
        if attribute.startswith("_"):
            continue
        try:
            value = getattr(module, attribute)
        except Exception:  # a lazy attribute that fails is not there for anyone else either
            continue
        if isinstance(value, types.ModuleType):
            continue
        dotted = f"{name}.{attribute}"
        listed = attribute in getattr(module, "__all__", ())
        found[dotted] = {**describe(value), "listed": listed}
        if isinstance(value, type):
            found.update(describe_members(value, dotted))
    return found


def describe_members(owner: type, dotted: str) -> Row:
    """Return the public members of a class, inherited ones too: they can be called through its name."""
    found: Row = {}
    for attribute in sorted(dir(owner)):
        if attribute.startswith("_") or attribute in COMMON_MEMBERS:
            continue
        raw = inspect.getattr_static(owner, attribute, None)
        try:
            value = getattr(owner, attribute)
        except Exception:
            value = raw
        if isinstance(value, type):
            found[f"{dotted}.{attribute}"] = {"kind": "class", "doc": "", "home": home_of(value)}
        else:
            found[f"{dotted}.{attribute}"] = {**describe(value), "inherited": attribute not in vars(owner)}
    return found


def describe(value: object) -> Row:
    """Return kind, documentation, home and, where it can be called, the parameters of an object."""
    if isinstance(value, type):
        kind = "class"
    elif inspect.isroutine(value):
        kind = "function"
    elif inspect.isdatadescriptor(value):
        kind = "property"
    else:
        kind = "value"
    row: Row = {"kind": kind, "doc": "" if kind == "value" else text_of(value), "home": home_of(value)}
    if callable(value):
        try:
            signature = inspect.signature(value)
        except (ValueError, TypeError, AttributeError, NameError, SyntaxError, RecursionError):
            return row  # many C functions do not tell; their documentation often begins with it
        parameters = signature.parameters.values()
        row["parameters"] = [[each.name, each.kind.name, each.default is not each.empty] for each in parameters]
        row["signature"] = str(inspect.Signature([shorten(each) for each in parameters]))
    return row


class Shown:
    """A default value as it is shown in a signature."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def shorten(parameter: inspect.Parameter) -> inspect.Parameter:
    """Return the parameter without annotation, its default in words that are equal on every machine."""
    default = parameter.default
    if default is parameter.empty:
        return parameter.replace(annotation=parameter.empty)
    return parameter.replace(annotation=parameter.empty, default=Shown(show(default)))


def show(value: object) -> str:
    """Return a default as code, '...' where its representation is long or depends on this machine or process."""
    if isinstance(value, type):
        return value.__qualname__
    plain = value is None or type(value) in (bool, int, float, str, bytes) or value in ((), [], {})
    text = repr(value) if plain else "..."
    # an absolute path is a place on this machine
    return "..." if len(text) > 40 or (isinstance(value, str) and len(value) > 1 and os.path.isabs(value)) else text


def text_of(value: object) -> str:
    """Return the object's documentation, cleaned of its indentation."""
    try:
        doc = value.__doc__
    except Exception:
        return ""
    return inspect.cleandoc(doc) if isinstance(doc, str) else ""


def home_of(value: object) -> str:
    """Return where an object says it was defined, '' if it does not."""
    qualified = getattr(value, "__qualname__", None)
    module = getattr(value, "__module__", None)
    if module is None:
        owner = getattr(value, "__objclass__", None)
        module = getattr(owner, "__module__", None)
    return f"{module}.{qualified}" if isinstance(qualified, str) and isinstance(module, str) else ""


if __name__ == "__main__":
    main()
