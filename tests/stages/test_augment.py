"""The augment stage on small sources: the same bytes twice, every document accounted for, nothing on two sides."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from genai_core.augmentation.retrieval_prompts import question_of
from genai_core.config.base import canonical
from genai_core.config.compute import ComputeConfig
from genai_core.config.data import (
    AugmentationConfig,
    BaseTokenizer,
    DedupConfig,
    FieldPairs,
    JsonlSource,
    PydocsPairs,
    PydocsSource,
    QuotePairs,
    SplitConfig,
    SymbolPairs,
    TextSource,
    TrainTokenizer,
)
from genai_core.config.retrieval import Rat
from genai_core.config.stages import AugmentStage
from genai_core.data.documents import read_documents_file, read_pairs
from genai_core.data.packing import PackedRows
from genai_core.data.resolve import resolve_source
from genai_core.data.split import SIDES, find_leaks, group_position
from genai_core.data.tokenizer import load_tokenizer, train_tokenizer
from genai_core.errors import DataError
from genai_core.feedback.verify import is_open_book, open_verifier
from genai_core.launch.inline import InlineWorkers
from genai_core.stages.augment import STEPS, augment
from genai_core.stages.contract import StageContext, StageJob
from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from genai_core.storage.folder import FolderStore
from genai_core.storage.workspace import Workspace
from genai_core.tracking.journal import Journal

SMALL = TrainTokenizer(vocab_size=400)


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("GENAI_HOME", str(tmp_path_factory.mktemp("home")))


def run(folder: Path, settings: AugmentationConfig, ref=None, **inputs):
    """Run the stage in `folder`; return its context and result."""
    ref = ref or resolve_source(settings.source)
    objects = FolderStore(folder / "store")
    workspace = Workspace(objects, "0" * 64, folder / "scratch")
    journal = Journal(workspace.path / "journal.jsonl")
    output = folder / "output"
    output.mkdir()
    job = StageJob(
        stage="augment",
        title="augment",
        key="0" * 64,
        attempt=1,
        kind=ArtifactKind.DATASET,
        name="corpus",
        config=AugmentStage(augmentation=settings).model_dump(mode="json"),
        inputs={"source": ref, **inputs},
        compute=ComputeConfig(),
        storage_uri=str(folder / "store"),
    )
    place = Path(ref.uri)
    context = StageContext(
        job=job,
        inputs={"source": place} if place.exists() else {},
        output=output,
        workspace=workspace,
        journal=journal,
        workers=InlineWorkers(workspace, journal, lambda: None),
        check=lambda: None,
    )
    return context, augment(AugmentStage.model_validate(job.config), context)


def run_in(folder: Path, settings: AugmentationConfig, **inputs):
    folder.mkdir()
    return run(folder, settings, **inputs)


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def stories(test_data, count):
    with gzip.open(test_data / "pretrain" / "tinystories_2mb.jsonl.gz", "rt", encoding="utf-8") as handle:
        return [json.loads(line)["text"] for line in handle][:count]


def check_artifact(output: Path, stats: dict) -> None:
    """What holds for every dataset artifact."""
    documents = {side: read_documents_file(output / "documents" / f"{side}.parquet") for side in SIDES}
    pairs = {side: read_pairs(output / "pairs" / f"{side}.parquet") for side in SIDES}
    kept = sum(map(len, documents.values()))
    assert stats["documents_read"] == kept + stats["dropped_total"]
    assert stats["dropped_total"] == sum(stats["dropped"].values())
    assert set(json.loads((output / "samples.json").read_text())) == set(stats["dropped"])
    groups = [{document.group for document in documents[side]} for side in SIDES]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert find_leaks(documents["train"], documents["heldout"] + documents["sealed"]) == {}
    for side in SIDES:
        ids = {document.doc_id for document in documents[side]}
        assert pairs[side]
        assert {pair.doc_id for pair in pairs[side]} <= ids
        assert all(set(document.links) <= ids for document in documents[side])
    tokenizer = load_tokenizer(output / "tokenizer")
    assert tokenizer.chat_template
    rows = PackedRows.open(output / "packed" / "train.arrow")
    assert len(rows) == stats["sides"]["train"]["rows"] > 0
    text = tokenizer.decode(rows[0].input_ids.tolist())
    assert any(document.text[:40] in text for document in documents["train"])
    assert not (output / "packed" / "sealed.arrow").exists()
    for name in ("preflight.html", "preflight.json", "tokenizer/chat_template.jinja"):
        assert (output / name).stat().st_size


def test_a_folder_of_text_files_twice(tmp_path, test_data):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    texts = stories(test_data, 120)
    for number in range(20):
        (corpus / f"{number:02}.txt").write_text("\n\n".join(texts[6 * number : 6 * number + 6]) + "\nann@corp.io")
    (corpus / "copy.txt").write_text((corpus / "03.txt").read_text().upper())
    (corpus / "near.txt").write_text((corpus / "04.txt").read_text().replace(" the ", " a ", 2))
    (corpus / "tiny.txt").write_text("too short")
    settings = AugmentationConfig(source=TextSource(path=str(corpus)), pairs=QuotePairs(), tokenizer=SMALL, seq_len=64)
    context, result = run_in(tmp_path / "a", settings)
    again, _ = run_in(tmp_path / "b", settings)
    assert hashes(context.output) == hashes(again.output)

    stats = json.loads((context.output / "stats.json").read_text())
    check_artifact(context.output, stats)
    assert stats["dropped"] == {"exact_duplicate": 1, "near_duplicate": 1, "too_short": 1}
    assert stats["masked_documents"] == 20
    assert result.metrics["documents"] == 20
    assert result.metrics["dropped_near_duplicate"] == 1
    assert set(result.told["step_seconds"]) == set(STEPS)
    assert "ann@corp.io" not in "".join(
        document.text
        for side in SIDES
        for document in read_documents_file(context.output / "documents" / f"{side}.parquet")
    )
    lines = (context.workspace.path / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line)["p"]["part"] for line in lines] == list(STEPS)
    here = str(tmp_path).encode()
    assert not any(here in path.read_bytes() for path in context.output.rglob("*") if path.is_file())

    changed, _ = run_in(tmp_path / "c", settings.model_copy(update={"seed": 1}))
    assert hashes(changed.output) != hashes(context.output)  # the comparison can fail


def test_questions_get_documents_of_their_own_side(tmp_path):
    settings = AugmentationConfig(
        source=PydocsSource(max_modules=40, topics=False),
        split=SplitConfig(heldout_fraction=0.25, sealed_fraction=0.25),
        pairs=PydocsPairs(calls_per_object=1),
        retrieval=Rat(documents=3, document_words=12),
        tokenizer=SMALL,
        seq_len=64,
    )
    context, _ = run_in(tmp_path / "a", settings)
    stats = json.loads((context.output / "stats.json").read_text())
    check_artifact(context.output, stats)
    documents = {
        side: {document.doc_id for document in read_documents_file(context.output / "documents" / f"{side}.parquet")}
        for side in SIDES
    }
    verifier, seen = open_verifier(context.output), set()
    for side in SIDES:
        seen |= documents[side]
        pairs = read_pairs(context.output / "pairs" / f"{side}.parquet")
        shown = {one["doc_id"] for pair in pairs for one in pair.check["retrieved"]}
        assert shown <= seen, "a question is told nothing of a side that is kept for later"
        assert shown & documents[side]
        assert all(verifier.judge(pair, pair.completion, use_gold=True).score == 1.0 for pair in pairs)
        names = [rf"\b{re.escape(pair.completion.partition('(')[0])}\b" for pair in pairs]
        questions = [question_of(pair).prompt.removeprefix("Which object") for pair in pairs]
        told = [re.search(name, question) for name, question in zip(names, questions, strict=True)]
        assert not any(told), "a question does not tell the name"
        bare = [pair for pair in pairs if not pair.check["retrieved"]]
        assert {pair.task for pair in pairs} == ({"call", "name"} if side == "train" else TASKS)
        assert bare and not any(is_open_book(pair) for pair in bare)
        found = stats["retrieval"][side]
        assert found["documents"] == len(seen) and 0.6 < found["prompts_with_the_right_document"] <= 1.0


TASKS = {f"{task}{way}" for task in ("call", "name") for way in ("", "-alone", "-oracle")}


def test_retrieval_needs_questions_that_stand_alone():
    with pytest.raises(ValidationError, match="and those of"):
        AugmentationConfig(source=TextSource(path="x"), pairs=QuotePairs(), retrieval=Rat())
    plain = canonical(AugmentationConfig())
    assert "retrieval" not in plain  # keys of corpora without it stay
    assert canonical(AugmentationConfig(retrieval=Rat()))["retrieval"]["kind"] == "rat"


def test_rows_with_questions_and_answers(tmp_path, test_data):
    with gzip.open(test_data / "retrieval" / "boolq_dev.jsonl.gz", "rt", encoding="utf-8") as handle:
        rows = [json.loads(line) for line in handle][:400]
    for row in rows:
        row["answer"] = "It is so." if row["answer"] in (True, "yes") else "It is not."
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps(row) for row in rows]
    lines[17] = "{"
    path.write_text("\n".join(lines))
    settings = AugmentationConfig(
        source=JsonlSource(path=str(path), text_field="passage", group_field="passage"),
        pairs=FieldPairs(prompt_field="question", completion_field="answer"),
        tokenizer=SMALL,
        seq_len=128,
    )
    context, result = run_in(tmp_path / "a", settings)
    stats = json.loads((context.output / "stats.json").read_text())
    check_artifact(context.output, stats)
    assert result.told["skipped_rows"] == stats["rows_skipped"] == 1
    assert result.told["first_skipped_rows"][0].startswith("rows.jsonl:18: not JSON")
    document = read_documents_file(context.output / "documents" / "train.parquet")[0]
    assert set(document.meta["fields"]) == {"question", "answer"}  # others are not published


def side_of(name, settings):
    position = group_position(name, settings.seed)
    return "train" if position >= settings.split.heldout_fraction + settings.split.sealed_fraction else "held"


def test_an_evaluation_item_inside_a_training_document_drops_it(tmp_path):
    rng = random.Random(0)

    def sentence():
        return " ".join("".join(rng.choices("abcdefghijklmn", k=6)) for _ in range(30))

    settings = AugmentationConfig(
        source=JsonlSource(path=str(tmp_path / "rows.jsonl"), group_field="group"),
        pairs=FieldPairs(prompt_field="question", completion_field="answer"),
        tokenizer=SMALL,
        seq_len=64,
    )
    rows = [
        {"group": f"g{n}", "text": sentence(), "question": sentence(), "answer": sentence()[:40]} for n in range(60)
    ]
    held = next(row for row in rows if side_of(row["group"], settings) != "train")
    leaky = next(row for row in rows if side_of(row["group"], settings) == "train")
    for planted in (False, True):
        if planted:
            leaky["text"] += f"\n{held['question'].upper()}? {held['answer']}."
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        context, _ = run_in(tmp_path / str(planted), settings)
        stats = json.loads((context.output / "stats.json").read_text())
        assert stats["dropped"].get("contaminated", 0) == planted
        assert stats["decontamination"]["evaluation_pairs_found"] == ({"answer": 1} if planted else {})
        trained = read_documents_file(context.output / "documents" / "train.parquet")
        assert any(document.group == leaky["group"] for document in trained) is not planted


def test_a_part_of_the_standard_library(tmp_path):
    settings = AugmentationConfig(
        source=PydocsSource(max_modules=25, topics=False), pairs=PydocsPairs(), tokenizer=SMALL, seq_len=64
    )
    context, result = run_in(tmp_path / "a", settings)
    stats = json.loads((context.output / "stats.json").read_text())
    check_artifact(context.output, stats)
    objects = json.loads((context.output / "objects.json").read_text())
    assert objects["len"] == [["obj", "POSITIONAL_ONLY", False]]
    assert stats["tasks"]["train"]["call"] > 0
    assert 0 < stats["supervised_shares"]["pairs/call"] < 1
    assert result.metrics["dropped_too_short"] == stats["dropped"]["too_short"]


def test_too_little_is_refused_with_counts(tmp_path, test_data):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    texts = stories(test_data, 11)
    for number, text in enumerate(texts):
        (corpus / f"{number:02}.txt").write_text(text if number > 3 else texts[3])
    settings = AugmentationConfig(source=TextSource(path=str(corpus)), pairs=QuotePairs(), tokenizer=SMALL, seq_len=64)
    with pytest.raises(DataError, match=r"8 documents in 8 groups \(dropped: 3 exact_duplicate\)"):
        run_in(tmp_path / "a", settings)
    assert not list((tmp_path / "a" / "output").iterdir())


def test_a_source_that_changed_after_it_was_resolved_is_refused(tmp_path, test_data):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in stories(test_data, 30)))
    settings = AugmentationConfig(source=JsonlSource(path=str(path)), pairs=QuotePairs(), tokenizer=SMALL, seq_len=64)
    ref = resolve_source(settings.source)
    path.write_text(path.read_text() + '{"text": "one more row of text"}\n')
    with pytest.raises(DataError, match="has changed since this run looked at it"):
        run_in(tmp_path / "a", settings, ref=ref)


def test_near_duplicates_can_be_kept(tmp_path, test_data):
    texts = stories(test_data, 30)
    path = tmp_path / "rows.jsonl"
    rows = [*texts, texts[0].replace(" the ", " a ", 1)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    for near in (True, False):
        settings = AugmentationConfig(
            source=JsonlSource(path=str(path)),
            dedup=DedupConfig(near=near),
            pairs=QuotePairs(),
            tokenizer=SMALL,
            seq_len=64,
        )
        context, _ = run_in(tmp_path / f"near-{near}", settings)
        dropped = json.loads((context.output / "stats.json").read_text())["dropped"]
        assert dropped.get("near_duplicate", 0) == near


def test_the_tokenizer_of_a_base_model_is_taken_as_it_is(tmp_path, test_data):
    texts = stories(test_data, 40)
    base = tmp_path / "base"
    train_tokenizer(texts, 450, 64).save_pretrained(str(base))
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    settings = AugmentationConfig(
        source=JsonlSource(path=str(path)), pairs=QuotePairs(), tokenizer=BaseTokenizer(), seq_len=64
    )
    ref = ArtifactRef(kind=ArtifactKind.SOURCE, name="base", version="1", digest="1" * 64, uri=str(base))
    context, _ = run_in(tmp_path / "a", settings, base=ref)
    ours = load_tokenizer(context.output / "tokenizer")
    assert ours.get_vocab() == load_tokenizer(base).get_vocab()
    here = str(tmp_path).encode()
    assert not any(here in file.read_bytes() for file in context.output.rglob("*") if file.is_file())


def test_several_classification_sets_become_prompts_of_their_own_side_with_symbols_of_their_own_pool(tmp_path):
    rng = random.Random(0)
    folder = tmp_path / "sets"
    folder.mkdir()
    for name, labels in (("mood", ("glad", "sad")), ("size", ("small", "large", "huge"))):
        with (folder / f"{name}.jsonl").open("w") as file:
            for number in range(150):
                text = " ".join("".join(rng.choices("bdgklmnprstaeiou", k=6)) for _ in range(8))
                file.write(json.dumps({"text": text, "label": labels[number % len(labels)], "secret": "s"}) + "\n")
    settings = AugmentationConfig(
        source=JsonlSource(path=str(folder)),
        pairs=SymbolPairs(min_exemplars=2, max_exemplars=3, eval_exemplars=2),
        split={"heldout_fraction": 0.2, "sealed_fraction": 0.2},
        tokenizer=SMALL,
    )
    context, result = run(tmp_path, settings)
    pairs = {side: read_pairs(context.output / "pairs" / f"{side}.parquet") for side in SIDES}
    for side, found in pairs.items():
        own = {document.doc_id for document in read_documents_file(context.output / "documents" / f"{side}.parquet")}
        assert {pair.check["dataset"] for pair in found} == {"mood.jsonl", "size.jsonl"}
        assert all({pair.doc_id, *pair.check["exemplars"]} <= own for pair in found)
    assert {pair.task for pair in pairs["train"]} == {"symbols"}
    assert {pair.task for pair in pairs["sealed"]} == {
        "symbols", "symbols_instructed", "labels", "labels_instructed", "flipped"
    }  # fmt: skip
    symbols = {side: {pair.completion for pair in found if pair.task == "symbols"} for side, found in pairs.items()}
    assert not symbols["train"] & (symbols["heldout"] | symbols["sealed"])
    assert "secret" not in (context.output / "documents" / "train.parquet").read_bytes().decode("latin-1")
    assert result.metrics
