"""`genai recipe new`: five kinds of own data, each looked at and given a recipe that fits; and data that gives none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from calling import call_genai

from genai_core.augmentation.outlook import look_ahead, worries
from genai_core.config.load import load_recipe
from genai_core.stages import forecast
from genai_core.stages.sizing import STAGES


@pytest.fixture
def genai(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("GENAI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(forecast, "measured_flops", lambda: 150e9)  # sizes of one machine, on every machine

    def call(*arguments: str) -> tuple[int, str]:
        code, out, error = call_genai(monkeypatch, capsys, *arguments)
        return code, f"{' '.join(out.split())} {error}".strip()

    return call


FIVE = {
    "pretrain/moby_dick.txt.gz": ("text", "quotes"),
    "instruct/gpteacher_roleplay.jsonl.gz": ("jsonl", "fields"),
    "apibench/huggingface_api.jsonl.gz": ("jsonl", "fields"),
    "classification/movie_reviews.jsonl.gz": ("jsonl", "fields"),
    "links/enwiki_sample.jsonl.gz": ("jsonl", "quotes"),
}


@pytest.mark.parametrize("name", FIVE)
def test_five_kinds_of_own_data(genai: Any, test_data: Path, name: str) -> None:
    code, told = genai("recipe", "new", "mine.yaml", "--from", str(test_data / name))
    assert code == 0, told
    recipe = load_recipe("mine.yaml")
    assert (recipe.data.source.kind, recipe.data.pairs.kind) == FIVE[name]
    outlook = look_ahead(recipe.data)
    assert outlook is not None
    assert worries(outlook, recipe) == [], told  # what it proposes passes its own check
    [worry] = worries(outlook, load_recipe("mine.yaml", ["evaluation.max_prompts=19"]))
    assert "the gate decides on at least 20" in worry
    readings = recipe.pretraining.steps * recipe.pretraining.global_batch_tokens / outlook.tokens()
    assert 0.3 < readings <= 4.1
    assert 120 < sum(forecast.forecast_stage(title, recipe, outlook)["seconds"] for title in STAGES) < 720, told


def test_sizes_grow_with_the_text(genai: Any, tmp_path: Path) -> None:
    sizes = []
    for count in (200, 4000):
        words = (
            "In the year {n} ship {n} sailed from port {m}. Her captain counted {k} men and {n} barrels of oil aboard."
        )
        rows = [{"text": " ".join(words.format(n=n + j, m=n * j, k=n - j) for j in range(6))} for n in range(count)]
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        code, told = genai("recipe", "new", "r.yaml", "--from", "rows.jsonl", "--force")
        assert code == 0, told
        recipe = load_recipe("r.yaml")
        sizes.append((recipe.data.tokenizer.vocab_size, recipe.base.n_layers, recipe.pretraining.steps))
    assert all(small < large for small, large in zip(*sizes, strict=True)), sizes


def test_too_little_is_told_before_any_training(genai: Any, tmp_path: Path) -> None:
    row = "The captain counted {n} men on deck. The mate wrote {n} names into the book. They sailed at dawn."
    (tmp_path / "ten.jsonl").write_text("\n".join(json.dumps({"text": row.format(n=n * 7919)}) for n in range(12)))
    code, told = genai("recipe", "new", "--from", "ten.jsonl")
    assert code == 0, told
    assert "will be sealed and measured, but the gate decides on at least 20" in told
    code, told = genai("recipe", "check", "ten.yaml")
    assert code == 0, told
    assert "will be sealed and measured, but the gate decides on at least 20" in told
    (tmp_path / "one.jsonl").write_text("\n".join(json.dumps({"text": row}) for _ in range(300)))
    code, told = genai("recipe", "new", "--from", "one.jsonl")
    assert code == 2
    assert "299 exact_duplicate" in told


def test_pairs_that_do_not_fit_are_told(test_data: Path, tmp_path: Path) -> None:
    source = f"data.source={{kind: jsonl, path: {test_data / 'classification/movie_reviews.jsonl.gz'}}}"
    pairs = "data.pairs={kind: fields, prompt_field: text, completion_field: label}"
    recipe = load_recipe("own-data", [source, pairs])
    outlook = look_ahead(recipe.data)
    assert outlook is not None
    assert any("longer than a row of 256 tokens" in worry for worry in worries(outlook, recipe))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.txt", b"", "holds 0 bytes"),
        ("page.html", b"<html><body><p>x</p></body></html>", "is HTML"),
        ("paper.pdf", b"%PDF-1.7", "pdftotext"),
        ("book.docx", b"PK\x03\x04xxxx", "zip archive"),
        ("rows.json", b'{"rows": [\n1]}', "not a list of objects"),
        ("numbers.jsonl", b'{"a": []}\n' * 20, "no field holds text"),
        ("short.txt", b"Too short to be split.", "Too little is left to split"),
        ("utf16.txt", "words".encode("utf-16"), "UTF-16"),
        ("s3://bucket/x", None, "own-data.yaml"),
        ("nowhere.txt", None, "no file or folder"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_remedy(
    genai: Any, tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    code, told = genai("recipe", "new", "mine.yaml", "--from", name)
    assert code == 2, told
    assert words in told
    assert "Traceback" not in told
    assert not (tmp_path / "mine.yaml").exists()


def test_a_recipe_that_is_there_is_kept(genai: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    code, told = genai("recipe", "new", "mine.yaml", "--from", "whatever.txt")
    assert code == 2
    assert "--force" in told
    assert (tmp_path / "mine.yaml").read_text() == "name: mine\n"
