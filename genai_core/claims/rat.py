"""Retriever-aware training: answers from documents that are found, and an eye for the right one among wrong ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from genai_core.augmentation.pairs import build_pairs
from genai_core.augmentation.retrieval_prompts import asked_pairs, oracle_pairs, show, training_pairs
from genai_core.augmentation.shown_documents import shown_documents
from genai_core.claims.arms import SMOLLM2, adapt_arm, instruct_base, small_corpus
from genai_core.claims.base import Cases, Claim, Comparison, Setting
from genai_core.config.data import PydocsPairs
from genai_core.config.generation import SamplingConfig
from genai_core.config.retrieval import Rat
from genai_core.data.bm25 import Bm25Index
from genai_core.data.documents import Pair, read_documents_file
from genai_core.data.tokenizer import load_tokenizer
from genai_core.evaluation.benchmarks.calls import answer_requests, judged_case
from genai_core.evaluation.runner import choose
from genai_core.feedback.verify import Verifier, read_objects
from genai_core.generation.engine import GenerationEngine
from genai_core.models.load import load_model

SEQ_LEN = 512
STEPS, TAUGHT, CALLS, ASKED = 14, 600, 2, 32
WRONG = (0, 2, 4, 6)
WORDS = 8
"""Of a document's prose that are shown, behind its signature: seven documents and a question fit a row."""

VARIED, ORACLE_ONLY = "varied", "oracle only"
ARMS = {
    VARIED: Rat(documents=3, oracle_share=0.6, retrieved_share=0.3, document_words=WORDS),
    ORACLE_ONLY: Rat(documents=1, oracle_share=1.0, retrieved_share=0.0, document_words=WORDS),
}
GREEDY = SamplingConfig(temperature=0.0, max_new_tokens=48)
RIGHT, HALLUCINATED, ALL, FALL = (
    "right calls",
    "hallucinated calls",
    "right calls, 2 to 6 wrong documents",
    "fall of right calls from no wrong document to 2 to 6",
)
FOUND, ALONE = "documents found", "none"


def measure(setting: Setting) -> Cases:
    """Tune one base with documents in two ways; ask held-out questions with found, no, and the right among wrong ones."""
    base, corpus = instruct_base(setting), small_corpus(setting)
    documents = {side: read_documents_file(corpus / "documents" / f"{side}.parquet") for side in ("train", "heldout")}
    objects = read_objects(corpus)
    everything = [*documents["train"], *documents["heldout"]]
    calls = PydocsPairs(calls_per_object=CALLS, names=False)
    bare = build_pairs(everything, calls, setting.seed, objects, documented=False)
    own = {side: {one.doc_id for one in found} for side, found in documents.items()}
    learned, questions = (
        choose([pair for pair in bare if pair.doc_id in own[side]], _name, most, setting.seed)
        for side, most in (("train", TAUGHT), ("heldout", ASKED))
    )
    known = Bm25Index(shown_documents(documents["train"], objects, WORDS))
    models = {
        name: adapt_arm(setting, base, training_pairs(learned, known, how, setting.seed), STEPS, seq_len=SEQ_LEN)
        for name, how in ARMS.items()
    }
    index = Bm25Index(shown_documents(everything, objects, WORDS))
    told = [oracle_pairs(questions, index, wrong, setting.seed) for wrong in WRONG]
    found = {
        FOUND: asked_pairs(questions, index, ARMS[VARIED].shown),
        ALONE: [show(question, [], index) for question in questions],
    }
    verifier = Verifier(objects)
    answered: dict[str, list[dict[str, Any]]] = {}
    curves: dict[str, list[list[float]]] = {}
    for name, folder in models.items():
        engine = GenerationEngine(load_model(folder).eval(), load_tokenizer(folder))
        curves[name] = [[case["right"] for case in _cases(engine, pairs, verifier)] for pairs in told]
        if name == VARIED:
            answered = {way: _cases(engine, pairs, verifier) for way, pairs in found.items()}
    return {
        RIGHT: {way: [case["right"] for case in cases] for way, cases in answered.items()},
        HALLUCINATED: {way: [case["hallucinated"] for case in cases] for way, cases in answered.items()},
        **over_wrong_documents(curves),
    }


def over_wrong_documents(curves: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, dict[str, list[float]]]:
    """Return for each number of wrong documents, over all but none, and for the fall between, a value a question.

    Args:
        curves: of each arm, for each of `WRONG`, whether each question was answered right.
    """
    one, *_ = curves.values()
    among = {name: [sum(each) / len(each) for each in zip(*curve[1:], strict=True)] for name, curve in curves.items()}
    falls = {
        name: [first - rest for first, rest in zip(curve[0], among[name], strict=True)]
        for name, curve in curves.items()
    }
    return {
        **{_beside(WRONG[at]): {name: list(curve[at]) for name, curve in curves.items()} for at in range(len(one))},
        ALL: among,
        FALL: falls,
    }


def _name(pair: Pair) -> str:
    return pair.pair_id


def _cases(engine: GenerationEngine, pairs: Sequence[Pair], verifier: Verifier) -> list[dict[str, Any]]:
    """Return the verdict on a model's greedy answer to every pair: right, hallucinated, error, unparsable."""
    answers = engine.generate(answer_requests(pairs), GREEDY)
    return [judged_case(pair, answer.text, verifier) for pair, answer in zip(pairs, answers, strict=True)]


def _beside(wrong: int) -> str:
    return f"right calls, {wrong} wrong documents beside the right one"


CLAIM = Claim(
    name="rat",
    source="Gorilla, Patil et al. 2023, arXiv 2305.15334; RAFT, Zhang et al. 2024, arXiv 2403.10131",
    asks=f"SmolLM2-135M-Instruct, {STEPS} steps (LoRA) of calls of Python's library, asked by what they do: with up to three "
    "documents, right and wrong ones (varied), or the right one alone (oracle only). Asked about held-out objects.",
    comparisons=(
        Comparison("documents make answers right, by 10 points", RIGHT, FOUND, ALONE, "higher", -0.1),
        Comparison("and fewer of them invented", HALLUCINATED, FOUND, ALONE, "lower"),
        Comparison("wrong documents mislead less who has seen some", ALL, VARIED, ORACLE_ONLY, "higher"),
        Comparison("the curve over their number is flatter", FALL, VARIED, ORACLE_ONLY, "lower"),
        Comparison("at no cost of more than 5 points without any", _beside(0), VARIED, ORACLE_ONLY, "higher", 0.05),
    ),
    measure=measure,
    needs_package=SMOLLM2.package,
)
