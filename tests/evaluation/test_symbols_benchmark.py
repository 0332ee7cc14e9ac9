"""Which candidate a model finds likeliest: chance for one that knows nothing, and the string's length is no argument."""

import random

import pytest
import torch
from tiny_world import make_context

from genai_core.augmentation.symbol_tuning import symbol_pairs
from genai_core.config.data import SymbolPairs
from genai_core.config.lifecycle import EvaluationConfig
from genai_core.config.stages import EvaluateStage
from genai_core.data.documents import Document, write_documents, write_pairs
from genai_core.data.tokenizer import load_tokenizer
from genai_core.evaluation.benchmarks.symbols import SUITES, candidate_rows, choices
from genai_core.evaluation.compare import Report
from genai_core.generation.scoring import score
from genai_core.models.load import load_model
from genai_core.stages.evaluate import evaluate


def documents(side: str, count: int = 40) -> list[Document]:
    rng = random.Random(side)
    made = []
    for number in range(count):
        text = " ".join(rng.choice(("wrap", "join", "split", "count", "sort", "copy")) for _ in range(3))
        fields = {"text": text, "label": ("good", "bad")[number % 2]}
        made.append(Document(f"{side}:{number}", f"{side}:{number}", "", text, meta={"fields": fields}))
    return made


PAIRS = symbol_pairs(documents("heldout"), SymbolPairs(eval_exemplars=2), 0, held_out=True)


def scored_by(loss, tokens=len):
    return [{"nll": loss(row["completion"]), "n_tokens": tokens(row["completion"])} for row in candidate_rows(PAIRS)]


def mean(name, found):
    return sum(one[name] for one in found) / len(found)


def test_a_model_that_knows_nothing_is_at_chance():
    found = choices(PAIRS, scored_by(lambda candidate: 3.0))
    assert all(one["chosen"] == one["chance"] == 0.5 for one in found)
    by_length = choices(PAIRS, scored_by(lambda candidate: 2.0 * len(candidate)))  # the same for every token
    assert mean("chosen_by_token", by_length) == 0.5


def test_one_that_knows_is_right_and_one_that_is_mistaken_wrong():
    gold = {pair.pair_id: pair.completion for pair in PAIRS}
    rows = candidate_rows(PAIRS)
    right = [{"nll": float(row["completion"] != gold[row["row_id"].rpartition("#")[0]]), "n_tokens": 1} for row in rows]
    assert mean("chosen", choices(PAIRS, right)) == 1.0
    assert mean("chosen", choices(PAIRS, [{**row, "nll": -row["nll"]} for row in right])) == 0.0


def test_a_real_model_of_equal_logits_is_at_chance_by_token(small_world):
    model, tokenizer = load_model(small_world / "m0"), load_tokenizer(small_world / "m0")
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    found = choices(PAIRS[:20], score(model, tokenizer, candidate_rows(PAIRS[:20])))
    assert mean("chosen_by_token", found) == pytest.approx(0.5, abs=0.25)  # rounding breaks ties either way


def test_every_setting_is_in_the_report_beside_chance(small_world, tmp_path):
    corpus = tmp_path / "corpus"
    for side in ("train", "heldout"):
        write_documents(corpus / "documents" / f"{side}.parquet", documents(side))
        pairs = symbol_pairs(documents(side), SymbolPairs(eval_exemplars=2), 0, held_out=side != "train")
        write_pairs(corpus / "pairs" / f"{side}.parquet", pairs)
    settings = EvaluationConfig(max_documents=4, max_prompts=6, max_new_tokens=4, bootstrap_draws=50)
    config = EvaluateStage(evaluation=settings, split="heldout")
    context = make_context(tmp_path / "a", "evaluate", config, {"model": small_world / "m0", "corpus": corpus})
    evaluate(config, context)
    report = Report.read(context.output)
    assert {name.partition("/")[0] for name in report.figures} == {"text", *SUITES}
    for suite in SUITES:
        assert report.figures[f"{suite}/chance"] == 0.5
        assert 0 <= report.figures[f"{suite}/chosen"] <= 1
        assert report.intervals[f"{suite}/chosen"].low < report.intervals[f"{suite}/chosen"].high
