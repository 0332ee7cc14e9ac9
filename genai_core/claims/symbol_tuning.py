"""Symbol tuning: who was tuned on arbitrary labels reads the labels of its exemplars, flipped and unrelated ones too."""

from __future__ import annotations

from pathlib import Path

from genai_core.augmentation.symbol_tuning import symbol_pairs
from genai_core.claims.arms import SMOLLM2, adapt_arm, instruct_base
from genai_core.claims.base import Cases, Claim, Comparison, Setting
from genai_core.config.data import JsonlSource, SymbolPairs
from genai_core.data.documents import Document, Pair
from genai_core.data.sources.registry import read_documents
from genai_core.data.tokenizer import load_tokenizer
from genai_core.evaluation.benchmarks.symbols import candidate_rows, choices
from genai_core.evaluation.labelled_texts import BAD_ROW_SHARE
from genai_core.evaluation.runner import choose
from genai_core.generation.scoring import score
from genai_core.models.load import load_model

FILES = "classification/[st]*.jsonl.gz"
"""Subjectivity, polarity, kinds of questions."""

SEQ_LEN = 256
STEPS, TAUGHT, ASKED = 60, 900, 100
PROMPTS = SymbolPairs(min_exemplars=2, max_exemplars=3, eval_exemplars=2, max_classes=2, text_words=16, prompt_words=80)
UNTUNED, NATURAL, SYMBOLS = "untuned", "tuned on natural labels", "tuned on symbols"
FIGURES = {suite: f"right of two candidates, {suite}" for suite in ("symbols", "flipped", "labels")}


def measure(setting: Setting) -> Cases:
    """Tune SmolLM2 both ways; ask held-out texts with unrelated, flipped and natural labels."""
    assert setting.data is not None
    base = instruct_base(setting)
    train, test = (
        _texts(setting.data, split, most, setting.seed) for split, most in (("train", TAUGHT), ("test", 400))
    )
    natural = PROMPTS.model_copy(update={"labels": "natural"})
    models = {UNTUNED: base} | {
        name: adapt_arm(setting, base, symbol_pairs(train, how, setting.seed, held_out=False), STEPS, seq_len=SEQ_LEN)
        for name, how in ((NATURAL, natural), (SYMBOLS, PROMPTS))
    }
    pairs = symbol_pairs(test, PROMPTS, setting.seed, held_out=True)
    asked = {suite: _choose([pair for pair in pairs if pair.task == suite], setting.seed) for suite in FIGURES}
    found: dict[str, dict[str, list[float]]] = {figure: {} for figure in FIGURES.values()}
    for name, folder in models.items():
        model, tokenizer = load_model(folder).eval(), load_tokenizer(folder)
        for suite, chosen in asked.items():
            scored = choices(chosen, score(model, tokenizer, candidate_rows(chosen)))
            found[FIGURES[suite]][name] = [one["chosen"] for one in scored]
    return found


def _texts(data: Path, split: str, most: int, seed: int) -> list[Document]:
    """Return some rows of one side of the sets' own splits."""
    rows = read_documents(JsonlSource(path=str(data / FILES)), None, BAD_ROW_SHARE).documents
    own = [row for row in rows if row.meta["fields"]["split"] == split]
    return choose(own, lambda row: row.doc_id, most, seed)


def _choose(pairs: list[Pair], seed: int) -> list[Pair]:
    """Return some pairs; the same texts in every setting that has them."""
    return choose(pairs, lambda pair: pair.pair_id.partition(":")[2], ASKED, seed)


CLAIM = Claim(
    name="symbol_tuning",
    source="Symbol tuning, Wei et al. 2023, arXiv 2305.08298",
    asks=f"SmolLM2-135M-Instruct, {STEPS} steps (LoRA) of prompts with 2 or 3 exemplars of two classes, out of three public sets; "
    "asked about held-out texts, with symbols that none was trained on.",
    comparisons=(
        Comparison("reads unrelated labels, unlike the untuned model", FIGURES["symbols"], SYMBOLS, UNTUNED, "higher"),
        Comparison("and one tuned on natural labels", FIGURES["symbols"], SYMBOLS, NATURAL, "higher"),
        Comparison("follows flipped labels, unlike the untuned model", FIGURES["flipped"], SYMBOLS, UNTUNED, "higher"),
        Comparison("and one tuned on natural labels", FIGURES["flipped"], SYMBOLS, NATURAL, "higher"),
        Comparison("loses at most 7 points on natural labels", FIGURES["labels"], SYMBOLS, UNTUNED, "higher", 0.07),
    ),
    measure=measure,
    needs_data=True,
    needs_package=SMOLLM2.package,
)
