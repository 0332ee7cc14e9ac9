from __future__ import annotations

from types import SimpleNamespace

import pytest

from genai_core.augmentation.pairs import build_pairs
from genai_core.config.data import PydocsPairs, PydocsSource
from genai_core.data.pydocs import read_with_objects
from genai_core.feedback.verify import Verifier


@pytest.fixture(scope="session")
def stdlib() -> SimpleNamespace:
    """The real thing: documentation of the first 100 modules, its objects, the pairs made of it, their verifier."""
    result, objects = read_with_objects(PydocsSource(topics=False, max_modules=100))
    pairs = build_pairs(result.documents, PydocsPairs(), 0, objects)
    return SimpleNamespace(documents=result.documents, objects=objects, pairs=pairs, verifier=Verifier(objects))
