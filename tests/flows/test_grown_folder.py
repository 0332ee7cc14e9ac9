"""The lifecycle's plan on a folder of one's own text that changes: content decides what is computed again.

Walked without Prefect, Ray or a model, in seconds; test_own_data.py goes the same way through whole runs.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from genai_core.config.load import load_recipe
from genai_core.config.settings import read_settings
from genai_core.storage.artifact import ArtifactKind, ArtifactRef
from genai_core.storage.artifacts import ArtifactStore
from genai_core.storage.claims import Claim, acquire
from genai_core.storage.owner import this_process

RECIPE = """
name: own
data:
  source: {kind: text, path: ./text}
  pairs: {kind: quotes}
  tokenizer: {kind: train, vocab_size: 400}
recursion: {generations: 0}
"""
WORDS = ("apple", "bridge", "candle", "door", "engine", "forest", "garden", "hammer", "island", "jacket", "kettle")
STAGES = {
    *("augment", "pretrain", "finetune", "sample-corrections", "train-corrected", "measure-correction"),
    *("evaluate-base", "evaluate-candidate", "verify", "seal-base", "seal-candidate"),
}


def write_text(path: Path, seed: int) -> None:
    """Write a document of ten sentences."""
    draw = random.Random(seed)
    sentences = (" ".join(draw.choices(WORDS, k=7)).capitalize() + "." for _ in range(10))
    path.write_text(" ".join(sentences) + "\n")


def write_folder(folder: Path) -> Path:
    """Write twelve documents and the recipe that reads them; return the folder of the documents."""
    (folder / "own.yaml").write_text(RECIPE)
    text = folder / "text"
    text.mkdir()
    for index in range(12):
        write_text(text / f"{index:02}.txt", index)
    return text


class Walk:
    """The lifecycle's plan on a store in which a stage that is looked for and missing is there at once, as a stand-in."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._computed: list[str] = []
        self._find = ArtifactStore.find
        monkeypatch.setattr(ArtifactStore, "find", lambda store, key, verify=True: self._find_or_make(store, key))

    def go(self) -> tuple[dict[str, str], set[str]]:
        """Return the key of every stage, and which stages were missing."""
        from flows.plan import plan

        self._computed.clear()
        settings = read_settings(home=self._folder / "home")
        rows = plan(load_recipe(str(self._folder / "own.yaml"), []), settings, [])
        keys = {row.name: row.artifact.key for row in rows if row.artifact}
        return keys, {name for name, key in keys.items() if key in self._computed}

    def _find_or_make(self, store: ArtifactStore, key: str) -> ArtifactRef | None:
        if self._find(store, key) is None:
            claim = acquire(store.objects, key, this_process("walk"), stale_seconds=60)
            assert isinstance(claim, Claim)
            output = self._folder / "output" / key
            output.mkdir(parents=True)
            (output / "content").write_text(key)
            store.publish(claim, ArtifactKind.REPORT, "stand-in", output, {"metrics": {}})
            self._computed.append(key)
        return self._find(store, key)


def test_content_decides_what_is_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text, walk = write_folder(tmp_path), Walk(tmp_path, monkeypatch)
    first, computed = walk.go()
    assert computed == set(first) == STAGES
    assert walk.go() == (first, set())
    write_text(text / "new.txt", 12)
    grown, computed = walk.go()
    assert computed == set(grown) == STAGES
    assert not set(first.values()) & set(grown.values())
    (text / "new.txt").rename(text / "other.txt")
    assert walk.go()[1] == STAGES  # a document's name is its identity
    (text / "other.txt").unlink()
    (text / "00.txt").touch()
    assert walk.go() == (first, set())  # the old content again: nothing is paid for twice
    (text / "00.txt").write_text((text / "00.txt").read_text().swapcase())  # as long as it was
    assert walk.go()[1] == STAGES
