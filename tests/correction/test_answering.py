"""One corrected answer: chosen and revised by a verifier where there is one, voted for where there is none."""

from __future__ import annotations

import pytest

from genai_core.correction.answering import answer_corrected
from genai_core.data.documents import Pair
from genai_core.feedback.verify import Verifier
from genai_core.generation.driver import drive
from genai_core.generation.types import Completion, Request

PROMPT = "textwrap.shorten(text, width)\nCollapse the text.\n\nWrite the call with text = 'blue' and width = 20."
RIGHT, WRONG = "textwrap.shorten('blue', 20)", "textwrap.shorten('blue')"
OBJECTS = {"textwrap.shorten": [["text", "POSITIONAL_OR_KEYWORD", False], ["width", "POSITIONAL_OR_KEYWORD", False]]}


def pair(kind: str = "python_call") -> Pair:
    return Pair("p", "chat", "", "", PROMPT, "", {"kind": kind})


def answer(texts: list[str], verifier: Verifier | None, revision: str = "", n: int = 3, fits=None):
    asked: list[Request] = []

    def complete(requests: list[Request]) -> list[Completion]:
        asked.extend(requests)
        said = [revision] if requests[0].draft else texts
        return [
            Completion(request.row_id, text, (1,) * 4, -1.0 - index, "stop", 9)
            for index, (request, text) in enumerate(zip(requests, said, strict=True))
        ]

    return drive([answer_corrected(pair(), n, verifier, fits)], complete)[0], asked


def test_the_verified_candidate_is_taken_and_nothing_is_revised():
    result, asked = answer([WRONG, RIGHT, "no"], Verifier(OBJECTS))
    assert (result.answer.text, result.how, result.agreed, result.revised) == (RIGHT, "verified", 1, False)
    assert result.n_tokens == 12 and len(asked) == 3


@pytest.mark.parametrize(("revision", "how", "text"), [(RIGHT, "verified", RIGHT), ("no", "refused", WRONG)])
def test_a_refused_best_is_revised_once_and_kept_if_the_revision_is_worse(revision, how, text):
    result, asked = answer(["no", WRONG, "no"], Verifier(OBJECTS), revision)
    assert (result.answer.text, result.how, result.agreed) == (text, how, 0)
    assert result.revised is (text == RIGHT)
    assert asked[-1].draft == WRONG and asked[-1].remark == result.remark and "width" in result.remark
    assert result.n_tokens == 16, "three candidates and a revision"


def test_a_revision_that_does_not_fit_is_left_out():
    result, asked = answer(["no"] * 3, Verifier(OBJECTS), RIGHT, fits=lambda request: not request.draft)
    assert result.how == "refused" and len(asked) == 3 and result.n_tokens == 12


@pytest.mark.parametrize(
    ("texts", "how", "agreed", "text"),
    [(["a", "b", " b "], "voted", 2, "b"), (["c", "a", "b"], "likeliest", 1, "c")],
)
def test_without_a_verifier_the_most_frequent_is_taken_and_of_all_different_the_likeliest(texts, how, agreed, text):
    result, _ = answer(texts, None)
    assert (result.how, result.agreed, result.answer.text) == (how, agreed, text)
    assert result.n_tokens == 12 and not result.revised


@pytest.mark.parametrize(
    ("prompt", "objects", "kind"),
    [
        (PROMPT, OBJECTS, "python_call"),
        (PROMPT, None, ""),
        (PROMPT.replace("textwrap.shorten", "os.unknown"), OBJECTS, ""),
        (PROMPT.partition("\n\n")[0] + "\n\nWhat is it for?", OBJECTS, ""),
        ("She ran. He sat still.\n\nWhich sentence of the passage begins with: He sat", None, "quote"),
        ("She ran. He sat still.\n\nWhich sentence of the passage begins with: They", None, ""),
        ("What closes a file?", OBJECTS, ""),
    ],
)
def test_a_prompt_says_itself_what_can_be_checked(prompt, objects, kind):
    assert Verifier(objects).check_of(prompt) == kind
