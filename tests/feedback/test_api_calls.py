"""Calls of documented APIs: what is the asked one, another one, none at all; and how the released scripts see it."""

from __future__ import annotations

import gzip
import json

import pytest

from genai_core.errors import DataError
from genai_core.feedback.api_calls import ApiDatabase, shares

RECORDS = [
    {"api_call": "torch.hub.load(repo_or_dir='pytorch/vision', model='resnet50', pretrained=True)", "domain": "image"},
    {"api_call": "torch.hub.load(repo_or_dir='pytorch/vision', model='resnet101')", "domain": "image"},
    {"api_call": "torch.hub.load(repo_or_dir='snakers4/silero', model='stt')", "domain": "audio"},
    {"api_call": "torch.hub.load(repo_or_dir='huggingface/transformers')", "domain": "text"},
    {"api_call": "AutoModel.from_pretrained('a/b').", "domain": "text"},
    {"api_call": "pipeline('summarization', model='x/y')", "domain": "text"},
    {"api_call": "pipeline('translation')", "domain": "text"},
    {"api_call": "hub.KerasLayer(handle='https://h/1')", "domain": "image"},
    {"api_call": "SentenceTransformer('s/t')", "domain": "text"},
    {"api_call": "not a call", "domain": "text"},
]
DATABASE = ApiDatabase(RECORDS)
HUB, MODEL, PIPE, LAYER, ENCODER = (RECORDS[at]["api_call"] for at in (0, 4, 5, 7, 8))
OPEN, PLAIN = RECORDS[3]["api_call"], RECORDS[6]["api_call"]

TABLE = [
    # the asked one, in another form
    (HUB, HUB, "correct"),
    (HUB, "torch.hub.load('pytorch/vision', 'resnet50')", "correct"),
    (HUB, "torch.hub.load(model='resnet50', repo_or_dir='pytorch/vision')", "correct"),
    (HUB, 'torch.hub.load("pytorch/vision","resnet50",pretrained = False)', "correct"),
    (HUB, "torch.hub.load(\n    'pytorch/vision',\n    model='resnet50',\n)", "correct"),
    (HUB, "model = torch.hub.load('pytorch/vision', 'resnet50')", "correct"),
    (HUB, "import torch\nm = torch.hub.load('pytorch/vision', 'resnet50').eval()\nprint(m(x))", "correct"),
    (HUB, "run(torch.hub.load('pytorch/vision', 'resnet50'), size=3)", "correct"),
    (HUB, "import torch.hub as h\nh.load('pytorch/vision', 'resnet50')", "correct"),
    (HUB, "from torch import hub as h\nh.load('pytorch/vision', 'resnet50')", "correct"),
    (HUB, "from torch.hub import load\nload('pytorch/vision', 'resnet50')", "correct"),
    (HUB, "import torch as t\nget = t.hub.load\nget('pytorch/vision', 'resnet50')", "correct"),
    (HUB, "```python\ntorch.hub.load('pytorch/vision', 'resnet50')\n```", "correct"),
    (HUB, f"<<<domain>>>: image\n<<<api_call>>>: {HUB}\n<<<api_provider>>>: PyTorch\n<<<code>>>: x = (", "correct"),
    (HUB, "torch.hub.load('pytorch/' 'vision', 'resnet50')", "correct"),
    (HUB, "torch.hub.load(*['pytorch/vision', 'resnet50'])", "correct"),
    (MODEL, "AutoModel.from_pretrained('a/b')", "correct"),
    (MODEL, "transformers.AutoModel.from_pretrained('a/b', num_labels=2)", "correct"),
    (MODEL, "from transformers import AutoModel as A\nA.from_pretrained('a/b')", "correct"),
    (MODEL, "AutoModel.from_pretrained(pretrained_model_name_or_path='a/b')", "correct"),
    (PIPE, "pipeline(task='summarization', model='x/y', device=0)", "correct"),
    (LAYER, "import tensorflow_hub as hub\nhub.KerasLayer('https://h/1')", "correct"),
    (ENCODER, "from sentence_transformers import SentenceTransformer\nSentenceTransformer('s/t')", "correct"),
    (OPEN, "torch.hub.load('huggingface/transformers', 'model', 'bert')", "correct"),
    (PLAIN, "pipeline('translation', model='any/one')", "correct"),
    # another documented one
    (HUB, "torch.hub.load('pytorch/vision', 'resnet101')", "error"),
    (HUB, "torch.hub.load('snakers4/silero', 'stt')", "error"),
    (HUB, "AutoModel.from_pretrained('a/b')", "error"),
    (PIPE, "pipeline('translation')", "error"),
    # none of them
    (HUB, "torch.hub.load('pytorch/vision', 'resnet5')", "hallucination"),
    (HUB, "torch.hub.load('pytorch/vision2', 'resnet50')", "hallucination"),
    (HUB, "torch.hub.load('mypytorch/vision', 'resnet50')", "hallucination"),
    (HUB, "torch.hub.load('pytorch', 'resnet50')", "hallucination"),
    (HUB, "torch.hub.load('resnet50', 'pytorch/vision')", "hallucination"),
    (HUB, "torch.hub.load('pytorch/vision')", "hallucination"),
    (HUB, "torch.hub.load(model='resnet50')", "hallucination"),
    (HUB, "torch.hub.load(repo, 'resnet50')", "hallucination"),
    (HUB, "torch.hub.load()", "hallucination"),
    (HUB, "torch.hub.fetch('pytorch/vision', 'resnet50')", "hallucination"),
    (HUB, "load('pytorch/vision', 'resnet50')", "hallucination"),
    (HUB, "hub.load('pytorch/vision', 'resnet50')", "hallucination"),
    (HUB, "print('torch.hub.load(pytorch/vision, resnet50)')", "hallucination"),
    (MODEL, "AutoModelForCausalLM.from_pretrained('a/b')", "hallucination"),
    (PIPE, "pipeline('summarization')", "hallucination"),
    # no call
    (HUB, "", "unparsable"),
    (HUB, None, "unparsable"),
    (HUB, "torch.hub.load", "unparsable"),
    (HUB, "torch.hub.load('pytorch/vision', 'resnet50'", "unparsable"),
    (HUB, "Use torch.hub.load('pytorch/vision', 'resnet50') for it.", "unparsable"),
    (HUB, "torch.hub.load('pytorch/vision', 'resnet50', *more)", "unparsable"),
    (HUB, "<<<api_call>>>: \n<<<api_provider>>>: PyTorch", "unparsable"),
    (HUB, "load(" * 500 + ")" * 500, "unparsable"),
]


@pytest.mark.parametrize(("gold", "answer", "outcome"), TABLE)
def test_outcomes(gold: str, answer: str | None, outcome: str) -> None:
    assert DATABASE.judge(answer, gold) == outcome


LENIENT = [
    ("torch.hub.load('pytorch/vision', 'resnet50')", "image", "correct"),
    ("torch.hub.load('pytorch/vision', 'resnet101')", "image", "correct"),  # the domain is right
    ("invented.function('mypytorch/vision2', 'resnet50d')", "image", "correct"),  # the texts occur
    ("torch.hub.load('snakers4/silero', 'stt')", "image", "error"),
    ("torch.hub.load('nothing', 'here')", "image", "hallucination"),
    ("torch.hub.load(", "image", "unparsable"),
]


@pytest.mark.parametrize(("answer", "domain", "outcome"), LENIENT)
def test_the_released_scripts_forgive_more(answer: str, domain: str, outcome: str) -> None:
    assert DATABASE.judge_leniently(answer, HUB, domain) == outcome


def test_shares_sum_to_one() -> None:
    found = shares([DATABASE.judge(answer, gold) for gold, answer, _ in TABLE])
    assert sum(found.values()) == pytest.approx(1.0) and min(found.values()) > 0
    with pytest.raises(DataError, match="No answer was judged"):
        shares([])


def test_what_cannot_be_judged_is_said() -> None:
    assert DATABASE.unreadable == 1
    with pytest.raises(DataError, match="asked call 'no call' cannot be read"):
        DATABASE.judge(HUB, "no call")
    with pytest.raises(DataError, match="None of 1 API records"):
        ApiDatabase([{"api_call": "x y"}])


def rows(path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize(
    ("questions", "records"), [("torchhub", "torchhub_api"), ("huggingface_eval", "huggingface_api")]
)
def test_apibench_right_calls_are_right_and_those_of_others_are_errors(test_data, questions: str, records: str) -> None:
    folder = test_data / "apibench"
    database = ApiDatabase(rows(folder / f"{records}.jsonl.gz"))
    asked = []
    for row in rows(folder / f"{questions}.jsonl.gz"):
        try:
            database.judge("", row["api_call"])
        except DataError:
            continue  # "./run.sh ...", positional after keyword: the file's own faults
        asked.append(row["api_call"])
    assert len(asked) > 880
    assert shares([database.judge(call, call) for call in asked])["correct"] == 1.0
    shifted = shares([database.judge(other, call) for call, other in zip(asked, asked[7:], strict=False)])
    assert shifted["unparsable"] == 0.0 and shifted["error"] > 0.8 and shifted["correct"] < 0.15
    invented = shares([database.judge(call.replace("(", "x(", 1), call) for call in asked])
    assert invented["hallucination"] > 0.997  # DQN.load(load_from_hub(...)): the inner call is still a documented one
    assert sum(invented.values()) == pytest.approx(1.0)
