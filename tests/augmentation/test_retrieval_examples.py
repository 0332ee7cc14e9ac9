"""Documents as retrieval pairs: the query is not in the document, the negatives are of its group."""

from __future__ import annotations

from genai_core.augmentation.retrieval_examples import retrieval_examples
from genai_core.data.documents import Document


def documented(name: str, summary: str, rest: str = "It never fails.", group: str = "heapq") -> Document:
    text = f"{group}.{name}(a)\n\n{summary}\n\n{rest}"
    return Document(f"{group}.{name}", group, f"{group}.{name}", text, meta={"summary": summary.replace("\n", " ")})


DOCUMENTS = [
    documented("push", "Push the item onto\nthe heap."),
    documented("pop", "Pop the smallest item off the heap."),
    documented("merge", "Merge sorted inputs into one."),
    documented("nop", "Do nothing."),
    documented("join", "Join two or more paths.", group="path"),
    Document("s#1", "s", "How a heap works", "How a heap works\n\nEvery parent is smaller."),
    Document("s#2", "s", "s", "A text without a name."),
]


def test_summary_or_title_is_the_query_and_not_in_the_document() -> None:
    found = retrieval_examples(DOCUMENTS, 0, 0)
    assert list(found) == ["heapq.push", "heapq.pop", "heapq.merge", "path.join", "s#1"]
    push = found["heapq.push"]
    assert (push.query, push.positive) == ("Push the item onto the heap.", "heapq.push(a)\nIt never fails.")
    assert (found["s#1"].query, found["s#1"].positive) == ("How a heap works", "Every parent is smaller.")


def test_negatives_are_other_documents_of_the_group_and_depend_on_it_alone() -> None:
    found = retrieval_examples(DOCUMENTS, 1, 0)
    others = {found["heapq.pop"].positive, found["heapq.merge"].positive}
    assert set(found["heapq.push"].negatives) < others
    assert found["path.join"].negatives == ()
    assert len(retrieval_examples(DOCUMENTS, 9, 0)["heapq.push"].negatives) == 2
    fewer = [document for document in DOCUMENTS if document.group != "s"]
    assert retrieval_examples(fewer, 1, 0)["heapq.push"] == found["heapq.push"]
    seeds = {retrieval_examples(DOCUMENTS, 1, seed)["heapq.push"].negatives for seed in range(8)}
    assert len(seeds) == 2
