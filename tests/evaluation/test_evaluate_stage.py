"""The evaluate body on a tiny model: the same bytes twice, the right split, figures that follow from the cases."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from tiny_world import contents, make_context

from genai_core.config.generation import DiffusionWriter
from genai_core.config.lifecycle import EvaluationConfig
from genai_core.config.stages import EvaluateStage
from genai_core.data.documents import Pair, read_documents_file, read_pairs, write_pairs
from genai_core.errors import DataError, ModelError
from genai_core.evaluation.asking import AskedModel
from genai_core.evaluation.benchmarks.calls import judged_case
from genai_core.evaluation.compare import Report, compare
from genai_core.evaluation.report import figures_table
from genai_core.evaluation.runner import choose, figures_of
from genai_core.feedback.verify import Verifier
from genai_core.models.diffusion_folder import write_writer
from genai_core.stages.contract import StageResult
from genai_core.stages.evaluate import evaluate

SMALL = EvaluationConfig(max_documents=8, max_prompts=10, max_new_tokens=24, bootstrap_draws=100)


def run(
    root: Path, world: Path, *, model: str = "m60", split: str = "heldout", corpus: Path | None = None, **options: int
) -> tuple[StageResult, Path]:
    config = EvaluateStage(evaluation=SMALL, split=split)
    inputs = {"model": world / model, "corpus": corpus or world / "corpus"}
    context = make_context(root, "evaluate", config, inputs, **options)
    return evaluate(config, context), context.output


@pytest.fixture(scope="module")
def evaluated(small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[StageResult, Path]]:
    root = tmp_path_factory.mktemp("evaluated")
    return {model: run(root / model, small_world, model=model) for model in ("m0", "m60")}


def test_it_publishes_the_same_bytes_again(small_world: Path, evaluated, tmp_path: Path) -> None:
    _, again = run(tmp_path, small_world)
    assert contents(again) == contents(evaluated["m60"][1])
    assert sorted(contents(again)) == ["answers.jsonl", "cases.jsonl", "report.json"]


def test_figures_follow_from_the_cases(evaluated) -> None:
    result, output = evaluated["m60"]
    report = Report.read(output)
    assert figures_of(report.rows) == report.figures
    rows = [row for row in report.rows if row["suite"] == "text"]
    assert len(rows) == 8
    assert report.figures["text/bits_per_byte"] == pytest.approx(
        sum(row["nll"] for row in rows) / math.log(2) / sum(row["n_bytes"] for row in rows)
    )
    assert {name.partition("/")[0] for name in report.figures} == {"text", "call", "name", "quote"}
    assert result.metrics["eval/text/bits_per_byte"] == report.figures["text/bits_per_byte"]
    low, high = report.intervals["call/right"].low, report.intervals["call/right"].high
    assert 0 <= low <= report.figures["call/right"] <= high <= 1


@pytest.mark.parametrize("block_length", [0, 8])
def test_of_a_diffusion_model_text_and_answers_are_bounded_and_named_so(
    small_world: Path, tmp_path: Path, block_length: int
) -> None:
    """A causal model that is said to fill in masks: its figures mean little, but they are all there, twice the same."""
    world = tmp_path / "world"
    shutil.copytree(small_world / "m60", world / "m60")
    shutil.copytree(small_world / "corpus", world / "corpus")
    writer = DiffusionWriter(mask_token="!", block_length=block_length, row_tokens=64)
    write_writer(world / "m60", writer)
    result, output = run(tmp_path / "a", world)
    _, again = run(tmp_path / "b", world)
    assert contents(output) == contents(again)
    report = Report.read(output)
    rows = [row for row in report.rows if row["suite"] == "text"]
    errors = [row["nll_error"] for row in rows]
    total = sum(row["n_bytes"] for row in rows)
    assert report.figures["text/bits_per_byte_error"] == pytest.approx(
        math.sqrt(sum(error**2 for error in errors)) / math.log(2) / total
    )
    assert 0 < report.figures["text/bits_per_byte_error"] < 0.1 * report.figures["text/bits_per_byte"]
    assert result.metrics["eval/call/answer_loss_error"] > 0
    table = figures_table(report)
    assert "| text/bits_per_byte (upper bound) |" in table
    assert "| call/right |" in table


def test_bytes_are_those_of_the_documents(small_world: Path, evaluated) -> None:
    documents = {d.doc_id: d for d in read_documents_file(small_world / "corpus" / "documents" / "heldout.parquet")}
    for row in Report.read(evaluated["m60"][1]).rows:
        if row["suite"] == "text":
            assert row["n_bytes"] == len(documents[row["case_id"]].text.encode())


def test_a_trained_model_is_better_and_the_interval_says_so(evaluated) -> None:
    reports = {model: Report.read(output) for model, (_, output) in evaluated.items()}
    found = {difference.metric: difference for difference in compare(reports["m60"], reports["m0"], 500, 0)}
    assert found["call/answer_loss"].interval.high < -1
    assert found["call/answer_loss"].n == 10
    assert compare(reports["m0"], reports["m0"], 50, 0)[0].interval.mean == 0


def test_baselines_stand_beside_the_model(evaluated) -> None:
    """`len([])` is no right answer to anything, and in this world it is not even known; the constant quotes well."""
    baselines = Report.read(evaluated["m0"][1]).baselines
    assert set(baselines) == {"constant", "copied", "majority"}
    assert baselines["constant"]["call/right"] == 0
    assert baselines["constant"]["quote/valid"] == 1


def test_answers_can_be_looked_at(evaluated) -> None:
    rows = [json.loads(line) for line in (evaluated["m60"][1] / "answers.jsonl").read_text().splitlines()]
    assert {"prompt", "gold", "answer", "verdict", "valid", "right"} < set(rows[0])
    cases = {(row["suite"], row["case_id"]): row for row in Report.read(evaluated["m60"][1]).rows}
    for row in rows:
        assert cases[row["suite"], row["case_id"]]["right"] == float(row["right"])
        assert row["right"] or row["verdict"], "a wrong answer has its reason"


def test_the_sealed_split_is_read_only_when_it_is_asked_for(small_world: Path, tmp_path: Path) -> None:
    """Held-out evaluation of a corpus without its sealed files works; sealed evaluation names the missing one."""
    corpus = tmp_path / "corpus"
    shutil.copytree(small_world / "corpus", corpus)
    (corpus / "documents" / "sealed.parquet").unlink()
    (corpus / "pairs" / "sealed.parquet").unlink()
    run(tmp_path / "open", small_world, corpus=corpus)
    with pytest.raises(DataError, match=r"no pairs/sealed\.parquet"):
        run(tmp_path / "closed", small_world, corpus=corpus, split="sealed")
    _, output = run(tmp_path / "sealed", small_world, split="sealed")
    names = {pair.pair_id for pair in read_pairs(small_world / "corpus" / "pairs" / "sealed.parquet")}
    report = Report.read(output)
    assert report.split == "sealed"
    assert {row["case_id"] for row in report.rows if row["suite"] == "call"} <= names


def test_pairs_longer_than_the_model_are_counted_not_fatal(small_world: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(small_world / "corpus", corpus)
    path = corpus / "pairs" / "heldout.parquet"
    pairs = [pair for pair in read_pairs(path) if pair.task == "call"][:4]
    long = type(pairs[0])(**{**{n: getattr(pairs[0], n) for n in pairs[0].__slots__}, "prompt": "word " * 500})
    write_pairs(path, [long, *pairs[1:]])
    result, _ = run(tmp_path / "run", small_world, corpus=corpus)
    assert result.metrics["eval/too_long"] == 1


@pytest.mark.parametrize(
    ("answer", "valid", "right"),
    [("It is late now, he said.", 1.0, 0.0), ("The dog ran home at once.", 1.0, 1.0), ("The dog ran", 0.0, 0.0)],
)
def test_valid_is_not_right(answer: str, valid: float, right: float) -> None:
    gold = "The dog ran home at once."
    prompt = f"{gold} It is late now, he said.\n\nWrite the sentence that begins with: The dog ran"
    pair = Pair("q", "quote", "g", "d", prompt, gold, {"kind": "quote", "gold": gold})
    case = judged_case(pair, answer, Verifier())
    assert case == {"suite": "quote", "case_id": "q", "valid": valid, "right": right}


def test_a_broken_model_is_named(tmp_path: Path) -> None:
    asked = AskedModel("model", tmp_path, lambda *_, **__: [{"row_id": "d7", "nll": float("nan")}], _compute())
    with pytest.raises(ModelError, match="gives row d7 a loss of nan"):
        asked.score([{"row_id": "d7", "text": "x"}], "text")


def test_a_new_item_changes_at_most_one_choice() -> None:
    items = [f"item{index}" for index in range(100)]
    before = choose(items, str, 20, seed=1)
    after = choose(["new", *items], str, 20, seed=1)
    assert len(set(before) - set(after)) <= 1
    assert before == [item for item in items if item in before], "order is kept"
    assert choose(items, str, 20, seed=2) != before


def _compute():
    from genai_core.config.compute import ComputeConfig

    return ComputeConfig(threads=1, workers=1)
