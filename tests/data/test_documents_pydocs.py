"""The standard library as documents: never imported here, one name for each object, equal on every reading."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from genai_core.config.data import PydocsSource
from genai_core.data import inspection, inspection_child, pydocs
from genai_core.errors import StageFailedError


@pytest.fixture(scope="module")
def whole():
    read, objects = pydocs.read_with_objects(PydocsSource())
    return {document.doc_id: document for document in read.documents}, objects


def test_what_a_document_looks_like(whole):
    document = whole[0]["textwrap.shorten"]
    assert document.text.startswith(
        "textwrap.shorten(text, width, **kwargs)\n\nCollapse and truncate the given text to fit in the given width.\n"
    )
    assert (document.title, document.group) == ("textwrap.shorten", "textwrap")
    assert document.meta == {
        "object": "textwrap.shorten",
        "signature": "(text, width, **kwargs)",
        "kind": "function",
        "module": "textwrap",
        "summary": "Collapse and truncate the given text to fit in the given width.",
    }
    assert whole[1]["textwrap.shorten"] == [
        ["text", "POSITIONAL_OR_KEYWORD", False],
        ["width", "POSITIONAL_OR_KEYWORD", False],
        ["kwargs", "VAR_KEYWORD", False],
    ]


def test_the_library_is_covered(whole):
    documents, objects = whole
    kinds = {document.meta["kind"] for document in documents.values()}
    assert {"module", "class", "function", "method", "property"} <= kinds
    assert len(documents) > 5000  # 7,516 on 3.11; counts differ between interpreters
    assert sum(bool(document.meta["signature"]) for document in documents.values()) > 4000
    for name in ("str.join", "len", "math.sin", "os.stat", "struct.pack", "io.StringIO", "collections.deque.append"):
        assert documents[name].meta["object"] == name
        assert name in objects
    for alias in ("builtins.len", "posix.stat", "_struct.pack", "json.JSONDecoder"):
        assert alias not in documents
    assert not any(part.startswith("_") for name in documents if ":" not in name for part in name.split("."))
    assert {"json.JSONDecoder", "builtins.len", "os.path.join", "collections.OrderedDict.keys"} <= set(objects)


def test_documents_whose_object_can_be_called_are_among_the_objects(whole):
    documents, objects = whole
    signed = [d for d in documents.values() if d.meta["signature"]]
    missing = [d.doc_id for d in signed if d.doc_id not in objects]
    # what a module defines only on another platform is documented, but is not there
    assert len(missing) < 0.02 * len(signed), missing[:20]


def test_parameters_are_what_inspect_says(whole):
    """Parity with `inspect` in a process of its own: in this one other libraries put theirs in the place of some."""
    objects = whole[1]
    code = (
        "import inspect, json, textwrap\n"
        "print(json.dumps({\n"
        "    f'{module.__name__}.{name}': [\n"
        "        [p.name, p.kind.name, p.default is not p.empty] for p in inspect.signature(value).parameters.values()\n"
        "    ]\n"
        "    for module in (textwrap, json, inspect)\n"
        "    for name, value in vars(module).items()\n"
        "    if not name.startswith('_') and inspect.isfunction(value)\n"
        "}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = json.loads(done.stdout)
    assert len(expected) > 50
    assert {name: objects[name] for name in expected} == expected


def test_nothing_of_a_machine_or_a_process_is_in_the_text(whole):
    for document in whole[0].values():
        assert " at 0x" not in document.meta["signature"]
        assert sys.prefix not in document.meta["signature"]
        assert "<" not in document.meta["signature"].replace("'<", "").replace('"<', ""), document.doc_id


def test_reading_twice_gives_the_same_and_imports_nothing():
    source = PydocsSource(max_modules=30)
    code = (
        "import sys, json, hashlib\n"
        "from genai_core.config.data import PydocsSource\n"
        "from genai_core.data import pydocs\n"
        "read, objects = pydocs.read_with_objects(PydocsSource(max_modules=30))\n"
        "text = json.dumps([[d.doc_id, d.text, d.links, dict(d.meta)] for d in read.documents] + [objects])\n"
        "print(hashlib.sha256(text.encode()).hexdigest(), pydocs.digest())\n"
        "assert not {'antigravity', 'aifc', 'asyncore', 'cgi'} & set(sys.modules)\n"
        "assert not {'torch', 'ray', 'mlflow', 'transformers'} & set(sys.modules)\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": s}
        ).stdout
        for s in ("1", "2")
    }
    assert len(outputs) == 1
    documents = pydocs.read(source).documents
    assert {d.group.split(".")[0] for d in documents if d.meta["kind"] != "topic"} <= {
        name.split(".")[0] for name in pydocs.list_modules(30)
    }
    assert len(pydocs.list_modules(30)) == 30


def test_topics_can_be_left_out():
    assert not any(d.meta["kind"] == "topic" for d in pydocs.read(PydocsSource(max_modules=1, topics=False)).documents)


@pytest.mark.parametrize(
    ("doc", "summary"),
    [
        ("Return x.  Then more.", "Return x."),
        ("Use e.g. this\none, i.e. that! More", "Use e.g. this one, i.e. that!"),
        ("range(stop) -> range object\nrange(a, b)\n\nReturn an object.", "Return an object."),
        ("f(x)\nDoes it", "Does it"),
        ("Version 3.11 is it. No", "Version 3.11 is it."),
        ("", ""),
    ],
)
def test_first_sentences(doc, summary):
    assert pydocs.first_sentence(doc) == summary


# ---- the sandbox


def run_child(monkeypatch, tmp_path, body, **limits):
    """Inspect a module of ours: the child's path gets a folder, which `-I` otherwise keeps out."""
    (tmp_path / "probe_module.py").write_text(body)
    child = tmp_path / "child.py"
    source = Path(inspection_child.__file__).read_text()
    child.write_text(
        source.replace(
            "import importlib\n", f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport importlib\n", 1
        )
    )
    monkeypatch.setattr(inspection, "CHILD", child)
    return inspection.inspect_modules(["probe_module", "keyword"], **limits)


def test_a_module_that_prints_exits_or_fails_harms_nothing(monkeypatch, tmp_path):
    for body in (
        "print('{}')\nraise SystemExit(3)",
        "import sys; sys.stdout.write('x' * 9999); 1 / 0",
        "import no_such",
    ):
        found = run_child(monkeypatch, tmp_path, body)
        assert set(found) == {"keyword"}


@pytest.mark.parametrize(
    "body",
    [
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import socket; socket.getaddrinfo('localhost', 80)",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.system('true')",
        "open('written', 'w')",
        "import os; os.open('written', os.O_CREAT | os.O_WRONLY)",
        "import os; os.mkdir('made')",
    ],
)
def test_the_child_may_not_write_run_or_connect(monkeypatch, tmp_path, body):
    before = set(tmp_path.iterdir())
    found = run_child(
        monkeypatch,
        tmp_path,
        f"DONE = False\ntry:\n    {body}\n    DONE = True\nexcept PermissionError:\n    def refused(): 'Yes.'\n",
    )
    assert "probe_module.refused" in found["probe_module"]
    assert {path.name for path in tmp_path.iterdir()} - {path.name for path in before} <= {
        "probe_module.py",
        "child.py",
    }


def test_the_child_sees_no_secret_and_no_stdin(monkeypatch, tmp_path):
    monkeypatch.setenv("GENAI_S3_SECRET_KEY", "hush")
    body = (
        "import os, sys\n"
        "if not any('GENAI' in name for name in os.environ) and not sys.stdin.read():\n"
        "    def clean(): 'Yes.'\n"
    )
    reading, writing = os.pipe()
    os.write(writing, b"typed by a person")
    os.close(writing)
    kept = os.dup(0)
    os.dup2(reading, 0)
    try:
        found = run_child(monkeypatch, tmp_path, body)
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(reading)
    assert "probe_module.clean" in found["probe_module"]


def test_a_module_that_hangs_or_eats_is_stopped_and_named(monkeypatch, tmp_path):
    with pytest.raises(StageFailedError, match=r"stopped after 1\.5 seconds; the last module read was none"):
        run_child(monkeypatch, tmp_path, "import time; time.sleep(60)", wall_seconds=1.5)
    with pytest.raises(StageFailedError, match=r"ended with code -\d+"):
        run_child(monkeypatch, tmp_path, "while True: pass", cpu_seconds=1)
    found = run_child(monkeypatch, tmp_path, "x = bytearray(1 << 40)")
    assert set(found) == {"keyword"}
