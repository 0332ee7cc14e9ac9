"""GRIT: does one model that learns to search and to write search as well as one that only searches, and write as well?

The same base is tuned three times on the same rows, half retrieval examples, half text: with both terms, with the contrastive
one alone, with the causal one alone. Searched are held-out documents of the embedded documentation by their summaries, which
are taken out of them.
"""

from __future__ import annotations

from genai_core.augmentation.retrieval_examples import retrieval_examples
from genai_core.claims.arms import SEQ_LEN, heldout_losses, pretrain_arm, small_corpus, tune_arm
from genai_core.claims.base import Cases, Claim, Comparison, Setting
from genai_core.claims.combination import STEPS
from genai_core.config.objectives import CausalLm, Contrastive, MixedDataset, Mixture, MixtureTerm
from genai_core.data.documents import read_documents_file
from genai_core.data.tokenizer import load_tokenizer
from genai_core.evaluation.benchmarks.retrieval import Search, rank_by_vectors, rank_by_words, retrieval_cases
from genai_core.generation.encoding import Encoder
from genai_core.models.load import load_model

TUNING_STEPS = 300
SEARCHED = 400
HOW = Contrastive(temperature=0.05)
SEARCHES = MixtureTerm(objective=HOW, dataset="retrieval")
WRITES = MixtureTerm(objective=CausalLm(), dataset="text")
DATASETS = (MixedDataset(name="retrieval", rows=0.5), MixedDataset(name="text", rows=0.5))
ARMS = {
    "joint": (SEARCHES, WRITES),
    "search alone": (SEARCHES, WRITES.model_copy(update={"weight": 0.0})),
    "writing alone": (SEARCHES.model_copy(update={"weight": 0.0}), WRITES),
}
"""A term of weight 0 is computed and not learned from: so all three see the same rows in the same steps."""

NDCG, LOSS = "nDCG@10", "causal loss, nats/token"


def measure(setting: Setting) -> Cases:
    """Tune the three; search held-out documents and measure the loss of held-out text with each."""
    corpus = small_corpus(setting)
    base = pretrain_arm(setting, corpus, CausalLm(), STEPS)
    models = {
        name: tune_arm(setting, base, corpus, Mixture(datasets=DATASETS, terms=terms), TUNING_STEPS)
        for name, terms in ARMS.items()
    }
    documents = read_documents_file(corpus / "documents" / "heldout.parquet")
    examples = dict(list(retrieval_examples(documents, 0, setting.seed).items())[:SEARCHED])
    search = Search(
        {name: example.query for name, example in examples.items()},
        {name: example.positive for name, example in examples.items()},
        {name: {name: 1} for name in examples},
    )
    tokenizer = load_tokenizer(corpus / "tokenizer")
    rankings = {
        name: rank_by_vectors(search, Encoder(load_model(model).eval(), tokenizer, HOW, longest=SEQ_LEN))
        for name, model in models.items()
    }
    rankings["BM25"] = rank_by_words(search)
    return {
        NDCG: {
            name: [float(case["ndcg_at_10"]) for case in retrieval_cases(search, ranking)]
            for name, ranking in rankings.items()
        },
        LOSS: {name: heldout_losses(model, corpus, CausalLm()) for name, model in models.items()},
    }


CLAIM = Claim(
    name="grit",
    source="GRIT, Muennighoff et al. 2024, arXiv 2402.09906",
    asks=f"The causal model of the first claim, {TUNING_STEPS} steps more; held-out documents are found by their summaries.",
    comparisons=(
        Comparison("searches as well as search alone, to 1 point", NDCG, "joint", "search alone", "higher", 0.01),
        Comparison("writes as well as writing alone, to 2 %", LOSS, "joint", "writing alone", "lower", 0.06),
        Comparison("searches better than a model that only wrote", NDCG, "joint", "writing alone", "higher"),
        Comparison("and better than BM25", NDCG, "joint", "BM25", "higher"),
    ),
    measure=measure,
)
