"""The erase body on a tiny model: what it publishes erases, its figures are what was measured, a crash costs nothing."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tiny_world import contents, make_context

from genai_core.config.erasure import CorpusConcept, ErasureConfig, LabelledConcept
from genai_core.config.stages import EraseStage
from genai_core.data.documents import read_documents_file
from genai_core.data.tokenizer import load_tokenizer
from genai_core.errors import DataError, ModelError, StageFailedError
from genai_core.evaluation.labelled_texts import read_labelled
from genai_core.generation.scoring import score
from genai_core.representations.eraser_files import load_scrubbed, read_erasers
from genai_core.stages.contract import StageContext, StageResult
from genai_core.stages.erase import erase

SMALL: dict[str, Any] = {"max_documents": 6, "bootstrap_draws": 100, "probe_hidden": 8, "max_tokens": 48}


def labelled_file(world: Path, folder: Path, *, at_random: bool = False) -> LabelledConcept:
    """Write the corpus's texts, twice each, with the half of the modules that they are about; or that, shuffled."""
    texts = [
        (document.text, "high" if int(document.group[1:]) % 2 else "low")
        for split in ("train", "heldout", "sealed")
        for document in read_documents_file(world / "corpus" / "documents" / f"{split}.parquet")
    ]
    labels = [label for _, label in texts]
    if at_random:
        random.Random(0).shuffle(labels)
    rows = [{"body": text, "half": label} for (text, _), label in zip(texts, labels, strict=True)]
    path = folder / "labelled.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return LabelledConcept(path=str(path), text_field="body", label_field="half")


def context_of(root: Path, world: Path, concept: LabelledConcept, **changes: Any) -> tuple[EraseStage, StageContext]:
    config = EraseStage(erasure=ErasureConfig(**{"concept": concept, **SMALL, **changes}))
    inputs = {"model": world / "m60", "corpus": world / "corpus", "labelled": Path(concept.path)}
    return config, make_context(root, "erase", config, inputs)


@pytest.fixture(scope="module")
def erased(small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[StageResult, Path, LabelledConcept]:
    root = tmp_path_factory.mktemp("erased")
    concept = labelled_file(small_world, root)
    config, context = context_of(root / "run", small_world, concept)
    return erase(config, context), context.output, concept


def rows_of(report: dict[str, Any], **wanted: str) -> list[dict[str, Any]]:
    return [row for row in report["probes"] if all(row[name] == value for name, value in wanted.items())]


def test_linear_probes_lose_what_they_were_promised_to_lose(erased) -> None:
    report = json.loads((erased[1] / "report.json").read_text())
    for place in ("first", "middle", "last"):
        [before] = rows_of(report, arm="before", place=place, probe="linear", texts="fitted")
        [after] = rows_of(report, arm="after", place=place, probe="linear", texts="fitted")
        [control] = rows_of(report, arm="random", place=place, probe="linear", texts="fitted")
        assert before["bits"] > 0.1 and control["bits"] > 0.1
        assert after["bits"] < 1e-6 and after["guarantee"].startswith("guaranteed")
        assert after["accuracy"]["mean"] == pytest.approx(after["majority"])
        assert before["guarantee"] == control["guarantee"] == "nothing erased here"
    others = [row for texts in ("heldout", "fresh") for row in rows_of(report, arm="after", texts=texts)]
    for row in rows_of(report, arm="after", probe="non-linear") + others:
        assert not row["guarantee"].startswith("guaranteed")
    assert len(others) == 16 and all(row["accuracy"]["n"] == others[0]["accuracy"]["n"] for row in others)
    assert {row["guarantee"] for row in rows_of(report, arm="after", place="head")} == {"nothing erased here"}
    assert report["residual"] < 1e-6 and report["rank"] == report["points"] == 4
    assert report["left_out"] == {}
    assert all(after > 0 for after in report["change"]["after"])


def test_its_losses_are_those_of_the_model_that_it_publishes(erased, small_world: Path) -> None:
    """What loads with the model gives, loaded, the very losses of the report; without erasers those of before."""
    result, output, _ = erased
    report = json.loads((output / "report.json").read_text())
    cases = [json.loads(line) for line in (output / "cases.jsonl").read_text().splitlines()]
    documents = {d.doc_id: d for d in read_documents_file(small_world / "corpus" / "documents" / "heldout.parquet")}
    loaded = load_scrubbed(small_world / "m60", output)
    rows = [
        {"row_id": case["row_id"], "text": documents[case["row_id"]].text} for case in cases if case["arm"] == "after"
    ]
    scored = score(loaded, load_tokenizer(small_world / "m60"), rows)
    assert [row["nll"] for row in scored] == pytest.approx([c["nll"] for c in cases if c["arm"] == "after"], rel=1e-5)
    bits = report["text"]["after"]["bits_per_byte"]["mean"] - report["text"]["before"]["bits_per_byte"]["mean"]
    assert report["text"]["after"]["difference"]["mean"] == pytest.approx(bits)
    assert result.metrics["text/after/bits_per_byte/mean"] == report["text"]["after"]["bits_per_byte"]["mean"]
    erasers, record = read_erasers(output)
    assert record["labels"] == ["high", "low"] and sum(eraser.rank for eraser in erasers.values()) == report["rank"]
    with pytest.raises(ModelError, match="fit them again"):
        load_scrubbed(small_world / "m0", output)


def test_the_same_bytes_again_on_another_machine_and_after_a_crash(erased, small_world: Path, tmp_path: Path) -> None:
    _, output, concept = erased
    config, context = context_of(tmp_path / "run", small_world, concept)
    calls = 0

    def stop() -> None:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise KeyboardInterrupt

    context.check = stop
    with pytest.raises(KeyboardInterrupt):
        erase(config, context)
    kept = sorted(path.name for path in context.workspace.path.glob("erasers-*/*"))
    assert kept, "finished points are there"
    context.check = lambda: None
    made: list[str] = []
    inner = context.workers.map_shards

    def counting(*arguments: Any, **named: Any) -> list[Any]:
        made.append(named["name"])
        return inner(*arguments, **named)

    context.workers.map_shards = counting  # type: ignore[method-assign]
    context.job = context.job.model_copy(update={"compute": context.job.compute.model_copy(update={"shard_rows": 5})})
    erase(config, context)
    assert contents(context.output) == contents(output)
    assert f"moments-after-{kept[0][:4]}" not in made, "and are not fitted again"


def test_a_label_at_random_costs_less_than_a_concept(
    small_world: Path, erased, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Erasing as many labels that mean nothing: the price in variance is far below that of the concept."""
    concept = labelled_file(small_world, tmp_path, at_random=True)
    config, context = context_of(tmp_path / "run", small_world, concept)
    monkeypatch.setattr("genai_core.stages.erase._probe", lambda *_: [])  # not asked for here, and slow
    erase(config, context)
    changes = [
        sum(json.loads((output / "report.json").read_text())["change"]["after"])
        for output in (context.output, erased[1])
    ]
    assert changes[0] < changes[1]


def test_the_corpus_itself_names_concepts(small_world: Path) -> None:
    corpus = small_world / "corpus"
    config = ErasureConfig(concept=CorpusConcept(field="group"), min_label_texts=4)
    texts = read_labelled(config, corpus, None)
    assert texts.labels == tuple(sorted(f"m{n}" for n in range(8))) and len(texts.fitted) == 32
    assert texts.heldout == [], "held-out groups have other labels"
    with pytest.raises(DataError, match=r"fewer than two have erasure\.min_label_texts=10"):
        read_labelled(ErasureConfig(concept=CorpusConcept(field="kind")), corpus, None)
    with pytest.raises(DataError, match="No document of the corpus has a 'colour'"):
        read_labelled(ErasureConfig(concept=CorpusConcept(field="colour")), corpus, None)


def test_rare_labels_are_left_out_and_named_and_groups_stay_together(small_world: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"t": f"text {n}", "y": "abc"[0 if n < 30 else 1 if n < 60 else 2], "g": n // 2} for n in range(64)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    concept = LabelledConcept(path=str(path), text_field="t", label_field="y", group_field="g", heldout_fraction=0.25)
    config = ErasureConfig(concept=concept)
    texts = read_labelled(config, small_world / "corpus", path)
    assert texts.labels == ("a", "b") and set(texts.left_out) <= {"c"}
    sides = [{row["text"] for row in side} for side in (texts.fitted, texts.heldout)]
    assert not sides[0] & sides[1] and len(sides[1]) in range(10, 20)
    for n in range(0, 60, 2):
        assert (f"text {n}" in sides[0]) == (f"text {n + 1}" in sides[0])


def test_a_fit_that_failed_is_said_to_have(small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import genai_core.stages.erase as stage

    monkeypatch.setattr(stage, "residual_correlation", lambda *_: float("nan"))
    config, context = context_of(tmp_path / "run", small_world, labelled_file(small_world, tmp_path))
    with pytest.raises(StageFailedError, match="leaves a correlation of nan"):
        erase(config, context)
