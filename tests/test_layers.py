"""Which way imports point, and which library is behind which door; read from the source, and by importing.

    flows, cli -> tasks -> launch.submit
    stages -> recursion, correction -> launch, evaluation -> training, generation, feedback
           -> objectives, representations -> models, augmentation -> data -> storage, tracking -> config -> errors

Same level never. Plain types, and what a stage is given, are named from anywhere above what they themselves import.
An import inside a function counts like any other; one under `if TYPE_CHECKING` does not.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("genai_core", "tasks", "flows")

LEVELS = {
    "genai_core.errors": 0,
    "genai_core.config": 1,
    "genai_core.storage": 2,
    "genai_core.tracking": 2,
    "genai_core.data": 3,
    "genai_core.models": 4,
    "genai_core.augmentation": 4,
    "genai_core.objectives": 5,
    "genai_core.representations": 5,
    "genai_core.training": 6,
    "genai_core.generation": 6,
    "genai_core.feedback": 6,
    "genai_core.evaluation": 7,
    "genai_core.launch": 7,
    "genai_core.recursion": 8,
    "genai_core.correction": 8,
    "genai_core.stages": 9,
    "genai_core.claims": 9.5,
    "tasks": 10,
    "flows": 11,
    "genai_core.cli": 12,  # runs flows, and registry tasks without one
}

# Single modules that lie lower than their folder: plain types, and the tables that name bodies without importing them.
# They obey the level they are given here themselves.
LOWER = {
    "genai_core.storage.artifact": 1.5,
    "genai_core.generation.types": 1.5,
    "genai_core.feedback.types": 1.5,
    "genai_core.stages.contract": 2.5,
    "genai_core.stages.registry": 2.5,
}

DOORS = {
    "ray": ("genai_core.launch",),
    "mlflow": ("genai_core.tracking",),
    "boto3": ("genai_core.storage",),
    "botocore": ("genai_core.storage",),
    "torch.distributed": ("genai_core.training",),
    "prefect": ("tasks", "flows", "genai_core.cli"),
}

# What a flow process reads must not cost seconds, and must not hold a GPU.
LIGHT = ("tasks", "flows", "genai_core.config", "genai_core.storage", "genai_core.tracking", "genai_core.errors")
HEAVY = ("torch", "ray", "transformers", "mlflow")


@dataclass(frozen=True)
class Import:
    """One import statement: who imports what, and whether only when a function runs."""

    module: str
    file: Path
    line: int
    target: str
    lazy: bool

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}: {self.module} imports {self.target}"


def module_name(path: Path, root: Path = ROOT) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources(root: Path = ROOT) -> list[Path]:
    return sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))


def read_imports(path: Path, root: Path = ROOT) -> list[Import]:
    module = module_name(path, root)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return [
        Import(module, path, line, target, lazy)
        for line, targets, lazy in _statements(ast.parse(path.read_text(encoding="utf-8")).body, package, False)
        for target in targets
    ]


def _statements(body: list[ast.stmt], package: str, lazy: bool) -> Iterator[tuple[int, list[str], bool]]:
    for node in body:
        match node:
            case ast.Import(names=names):
                yield node.lineno, [name.name for name in names], lazy
            case ast.ImportFrom(module=source, names=names, level=level):
                above = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                base = ".".join([*above, *([source] if source else [])])
                # `from a import b` may mean the module a.b
                yield node.lineno, [f"{base}.{name.name}" for name in names], lazy
            case ast.If(test=test, orelse=orelse) if "TYPE_CHECKING" in ast.unparse(test):
                yield from _statements(orelse, package, lazy)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from _statements(node.body, package, True)
            case _:
                for field in ("body", "orelse", "finalbody"):
                    inner = getattr(node, field, [])
                    if isinstance(inner, list):
                        yield from _statements(inner, package, lazy)
                for part in (*getattr(node, "handlers", []), *getattr(node, "cases", [])):
                    yield from _statements(part.body, package, lazy)


def inside(module: str, parent: str) -> bool:
    return module == parent or module.startswith(f"{parent}.")


def folder_of(module: str) -> str | None:
    return next((folder for folder in LEVELS if inside(module, folder)), None)


def level_of(module: str) -> float | None:
    lower = next((level for name, level in LOWER.items() if inside(module, name)), None)
    folder = folder_of(module)
    return lower if lower is not None else LEVELS.get(folder or "")


def breaks_an_arrow(found: Import) -> str | None:
    """Return what is wrong with an import of ours by ours, None if nothing is."""
    if found.target.split(".")[0] not in PACKAGES or found.target in PACKAGES:
        return None
    here, there = level_of(found.module), level_of(found.target)
    if here is None or there is None:
        unknown = found.module if here is None else found.target
        return f"{found}: {unknown} has no level; add its folder to the table and to DESIGN 3"
    if there < here:
        return None
    same_folder = folder_of(found.module) == folder_of(found.target)
    if same_folder and found.module not in LOWER:
        return None
    return f"{found}: level {here:g} must not import level {there:g}"


def breaks_a_door(found: Import) -> str | None:
    """Return what is wrong with an import of a guarded library, None if nothing is."""
    for library, folders in DOORS.items():
        if inside(found.target, library) and not any(inside(found.module, folder) for folder in folders):
            return f"{found}: {library} is imported only in {', '.join(folders)}"
    return None


def loads_heavy(found: Import) -> str | None:
    """Return what is wrong with a heavy import at module level in a light place, None if nothing is."""
    heavy = any(inside(found.target, library) for library in HEAVY)
    if heavy and not found.lazy and any(inside(found.module, place) for place in LIGHT):
        return f"{found}: a flow process would load it; import it inside the function that needs it"
    if heavy and any(inside(found.module, place) for place in ("tasks", "flows")):
        return f"{found}: tasks and flows never import it, not even inside a function"
    return None


ALL = [found for path in sources() for found in read_imports(path)]


def faults(rule: object) -> list[str]:
    return [fault for found in ALL if (fault := rule(found))]  # type: ignore[operator]


def test_every_folder_has_a_level() -> None:
    folders = {module_name(path.parent) for path in sources() if path.parent != ROOT / "genai_core"}
    assert not [folder for folder in sorted(folders) if level_of(folder) is None]
    assert len(ALL) > 100


def test_arrows_point_one_way() -> None:
    assert not faults(breaks_an_arrow), "\n" + "\n".join(faults(breaks_an_arrow))


def test_one_library_has_one_door() -> None:
    assert not faults(breaks_a_door), "\n" + "\n".join(faults(breaks_a_door))


def test_the_flow_process_is_light_by_its_source() -> None:
    assert not faults(loads_heavy), "\n" + "\n".join(faults(loads_heavy))


def test_no_file_is_called_utils_or_is_too_long() -> None:
    names = [
        str(path.relative_to(ROOT)) for path in sources() if path.stem in {"utils", "util", "helpers", "common", "misc"}
    ]
    long = [
        f"{path.relative_to(ROOT)}: {lines} lines"
        for path in sources()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 450
    ]
    assert not names + long


def modules_of(*packages: str) -> list[str]:
    paths = [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
    return [name for name in map(module_name, paths) if not name.endswith("__main__")]


def test_the_flow_process_is_light_by_importing_it() -> None:
    """Import every flow and task in a fresh interpreter: no torch, ray, transformers or mlflow comes along."""
    code = (
        "import importlib, sys\n"
        f"for name in {modules_of('flows', 'tasks')!r}:\n"
        "    importlib.import_module(name)\n"
        f"    for heavy in {HEAVY!r}:\n"
        "        if heavy in sys.modules: sys.exit(f'{name} loads {heavy}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]


BARE = {"torch", "transformers", "tokenizers", "safetensors", "pydantic", "numpy", "pyarrow"}
STANDING = {("genai_core.training.plan", "psutil")}  # to be moved into the function that measures memory


def test_training_and_generation_need_little() -> None:
    """What they and all they import name at module level is on a bare GPU machine."""
    at_load: dict[str, list[Import]] = {}
    for found in ALL:
        if not found.lazy:
            at_load.setdefault(found.module, []).append(found)
    waiting = [module for module in at_load if module.startswith(("genai_core.training", "genai_core.generation"))]
    seen: set[str] = set()
    missing = set()
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        for found in at_load.get(module, ()):
            root = found.target.split(".")[0]
            if root in PACKAGES:
                waiting += [name for name in (found.target, found.target.rpartition(".")[0]) if name in at_load]
            elif root not in BARE | set(sys.stdlib_module_names) and (module, root) not in STANDING:
                missing.add(f"{found}: a bare GPU machine does not have it; import it inside a function")
    assert not missing, "\n" + "\n".join(sorted(missing))


@pytest.mark.parametrize(
    ("file", "text", "rule", "words"),
    [
        ("genai_core/config/x.py", "from genai_core.storage import digest", breaks_an_arrow, "x.py:1: .*level 1 .* level 2"),
        ("genai_core/data/x.py", "def f():\n    import genai_core.models.load", breaks_an_arrow, "x.py:2"),
        ("genai_core/training/x.py", "from genai_core.generation.engine import y", breaks_an_arrow, "level 6"),
        ("genai_core/training/x.py", "from ..generation import engine", breaks_an_arrow, "level 6"),
        ("genai_core/models/x.py", "try:\n    pass\nexcept OSError:\n    import flows.lifecycle", breaks_an_arrow, "x.py:4"),
        ("genai_core/stages/contract.py", "from genai_core.stages.entry import y", breaks_an_arrow, "level 9"),
        ("genai_core/new/x.py", "from genai_core.errors import y", breaks_an_arrow, "has no level"),
        ("genai_core/data/x.py", "def f():\n    from boto3 import client", breaks_a_door, "only in genai_core.storage"),
        ("genai_core/objectives/x.py", "import torch.distributed as dist", breaks_a_door, "only in genai_core.training"),
        ("genai_core/objectives/x.py", "from torch import distributed", breaks_a_door, "only in genai_core.training"),
        ("genai_core/stages/x.py", "import prefect", breaks_a_door, "tasks, flows, genai_core.cli"),
        ("genai_core/storage/x.py", "import torch", loads_heavy, "flow process"),
        ("tasks/x.py", "def f():\n    import ray", loads_heavy, "not even inside"),
    ],
)  # fmt: skip
def test_each_rule_catches_what_it_is_for(tmp_path: Path, file: str, text: str, rule: object, words: str) -> None:
    import re

    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    found = [
        Import(item.module, ROOT / file, item.line, item.target, item.lazy) for item in read_imports(path, tmp_path)
    ]
    messages = [message for item in found if (message := rule(item))]  # type: ignore[operator]
    assert messages and re.search(words, messages[0]), messages


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("genai_core/evaluation/x.py", "from genai_core.generation.types import Completion"),
        ("genai_core/launch/x.py", "from genai_core.stages.contract import StageJob\nimport ray"),
        ("genai_core/data/x.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import ray, flows.lifecycle"),
        ("genai_core/data/x.py", "from genai_core.data.packing import y\nfrom genai_core.config.base import Config"),
    ],
)  # fmt: skip
def test_no_rule_catches_what_is_allowed(tmp_path: Path, file: str, text: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    for item in read_imports(path, tmp_path):
        assert [rule(item) for rule in (breaks_an_arrow, breaks_a_door, loads_heavy)] == [None, None, None]
