"""Input that means harm: refused with a sentence, before anything runs, and nothing of it executed or written elsewhere.

What is forged in a store (manifests, paths, truncated files) is in tests/storage; damaged state in tests/faults; wrong
credentials in tests/cli/test_bad_input.py; a report of a name with a script in tests/cli/test_report.py.
"""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.calling import call_genai

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 3,
}
TOKENIZER = {
    "version": "1.0",
    "added_tokens": [],
    "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "[UNK]": 2}, "unk_token": "[UNK]"},
}
EMPTY_WEIGHTS = struct.pack("<Q", 2) + b"{}"
BRACKETS = "[" * 100_000


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENAI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "400")
    for name in ("GENAI_STORAGE_URI", "GENAI_TRACKING_URI", "GENAI_RAY_ADDRESS", "PREFECT_API_URL"):
        monkeypatch.setenv(name, "")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Call genai, and fail unless it refuses with these words and leaves nothing in its store, nor beside it."""

    def call(words: str, *arguments: object) -> None:
        before = {path for path in tmp_path.rglob("*") if "home" not in path.parts}
        code, _, said = call_genai(monkeypatch, capsys, *arguments)
        assert code == 2, said
        assert words in said and "Traceback" not in said
        assert {path for path in tmp_path.rglob("*") if "home" not in path.parts} == before
        assert not list((tmp_path / "home").glob("store/artifacts/*"))

    return call


@pytest.mark.parametrize(
    "name",
    [
        "../up",
        "a/b",
        "/etc/passwd",
        "a\\\\b",
        ".hidden",
        "<script>alert(1)</script>",
        "$(reboot)",
        "`reboot`",
        "; rm -rf x",
        "-rf",
        "\u202ecod.exe",
        "a%2fb",
        "x" * 300,
    ],
)
@pytest.mark.parametrize("key", ["name", "promotion.model_name"])
def test_a_name_that_would_be_more_than_a_name(refuse: Callable[..., None], key: str, name: str) -> None:
    refuse(f"{key} = ", "recipe", "check", "minute", "--set", f"{key}='{name}'")


@pytest.mark.parametrize(
    "override",
    [
        "pretraining.steps=1000000000000000000000000000000",
        "pretraining.global_batch_tokens=1000000000000000000",
        "pretraining.optimizer.learning_rate=.inf",
        "pretraining.optimizer.learning_rate=.nan",
        "base.n_layers=1000000000",
        "base.d_model=1000000000000",
        "base.d_ff=1000000000000000",
        "data.seq_len=1000000000000",
        "data.tokenizer.vocab_size=1000000000000",
        "recursion.generations=1000000000",
        "recursion.synthesis.samples_per_prompt=1000000000000",
        "correction.best_of=1000000000000",
        "evaluation.bootstrap_draws=1000000000000",
        "evaluation.max_new_tokens=1000000000",
        "compute.threads=1000000",
        "compute.workers=1000000",
        "compute.micro_batch_rows=1000000000",
    ],
)
def test_a_number_that_no_machine_can_bear(refuse: Callable[..., None], override: str) -> None:
    refuse(f"{override.partition('=')[0]} = ", "recipe", "check", "minute", "--set", override)


def test_a_model_within_the_bounds_that_this_machine_cannot_hold(refuse: Callable[..., None]) -> None:
    large = ["--set", "base.n_layers=1000", "--set", "base.d_model=65536"]
    refuse("pretrain would need about 209.8 TB of memory; this machine has", "recipe", "check", "minute", *large)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name: x\ndata: !!python/object/apply:os.system ['touch pwned']\n", "is not valid YAML"),
        (
            "name: x\n"
            + "a0: &a0 [x, x]\n"
            + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)),
            "unknown key",
        ),
        (f"name: x\ndata: {BRACKETS}", "nested deeper than any recipe"),
        ("name: x\ndescription: " + "y" * 2_000_000, "a recipe has at most 1,000,000"),
        ("- a\n- b\n", "a recipe is a mapping"),
    ],
    ids=["an object of Python", "a bomb of references", "brackets", "length", "a list"],
)
def test_a_recipe_that_is_none(refuse: Callable[..., None], tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "x.yaml").write_text(content)
    refuse(words, "recipe", "check", "x.yaml")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("__class__.__init__=1", "unknown key"),
        (f"data={BRACKETS}", "nested deeper"),
        ("data=!!python/name:os.system", "not a YAML value"),
        ("base={kind: artifact, key: ../../etc}", "base"),
    ],
    ids=["a class", "brackets", "an object of Python", "a forged artifact"],
)
def test_an_override_that_reaches_further(refuse: Callable[..., None], override: str, words: str) -> None:
    refuse(words, "recipe", "check", "minute", "--set", override)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("brackets.json", BRACKETS.encode(), "recursion"),
        ("garbage.parquet", b"PAR1" + b"\xff" * 1000 + b"PAR1", "not a readable Parquet file"),
        ("zeros.txt.gz", gzip.compress(bytes(30_000_000)), "is binary"),
        ("nul.csv", b"a,b\n\0\0\0,1\n", "is binary"),
        ("page.dat", b"<html><body><script>alert(1)</script></body></html>", "Turn it into text"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_data_that_is_none(refuse: Callable[..., None], tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    refuse(words, "recipe", "new", "new.yaml", "--from", name)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3://key:secret@bucket/x", "Give credentials with"),
        ("file://elsewhere/etc", "names the host"),
        ("javascript://alert(1)", "Storage scheme"),
    ],
)
def test_a_store_that_is_none(refuse: Callable[..., None], uri: str, words: str) -> None:
    refuse(words, "run", "minute", "--storage", uri)


@pytest.mark.parametrize("model", ["../../etc/passwd", "x' OR name LIKE '%", "<script>alert(1)</script>"])
def test_a_registered_model_that_is_a_trick(refuse: Callable[..., None], model: str) -> None:
    refuse("There is no model", "models", "show", model)


def folder(place: Path, weights: bytes = EMPTY_WEIGHTS, **files: object) -> Path:
    """Write a model's folder; a file's name has __ for its dot."""
    place.mkdir()
    told = {"config__json": LLAMA, "tokenizer__json": TOKENIZER, "tokenizer_config__json": {}, **files}
    for name, content in told.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (place / name.replace("__", ".")).write_text(text)
    if weights:
        (place / "model.safetensors").write_bytes(weights)
    return place


EVIL = {
    "auto_map": {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]}
}


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"weights": b""}, "no *.safetensors"),
        ({"config__json": "{"}, "cannot be read"),
        (
            {"config__json": {**LLAMA, **EVIL, "model_type": "evil"}, "evil__py": "open('pwned', 'w')"},
            "those are never run",
        ),
        ({"weights": struct.pack("<Q", 2**60) + b"{}"}, "model.safetensors is damaged"),
        ({"weights": struct.pack("<Q", 2) + b"{"}, "model.safetensors is damaged"),
    ],
    ids=["only pickles", "half a config", "code of its own", "a header without end", "half a header"],
)
def test_a_model_folder_that_is_a_trap(
    refuse: Callable[..., None], tmp_path: Path, made: dict[str, object], words: str
) -> None:
    place = folder(tmp_path / "model", **made)  # type: ignore[arg-type]
    (place / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.")
    base = f"base={{kind: folder, path: {place}}}"
    refuse(words, "run", "minute", "--set", base, "--set", "data.tokenizer={kind: base}")
    assert not list(tmp_path.rglob("pwned"))
