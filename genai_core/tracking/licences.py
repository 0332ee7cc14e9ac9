"""Under which licences the data, the base and the teacher came that a model was made of, read from its lineage.

    corpus.config = {"augmentation": {"source": {"kind": "jsonl", "license": "CC-BY-4.0"}}}   -> its input `source`
    base.config   = {"base": {"kind": "hub", "license": "Apache-2.0"}}                        -> its input `base`
    model.config  = {"training": {"objective": {"teacher": {"kind": "hub", "license": "MIT"}}}}     -> its input `teacher`

A licence is no part of a stage's identity: one that is stated after an artifact was made is given as `stated`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from genai_core.config.data import PYTHON_LICENSE
from genai_core.tracking.lineage import Node

NOT_STATED = "not stated"


@dataclass(frozen=True)
class Licence:
    """What is said of one source, base or teacher."""

    role: str
    """'data', 'base' or 'teacher'."""

    name: str
    digest: str
    text: str
    """An SPDX id, or words; '' = not stated."""


def licences_of(lineage: Node, stated: Mapping[str, str] | None = None) -> list[Licence]:
    """Return the licence of every source and base in a lineage, data first, by name.

    Args:
        stated: licences by digest of the source or base, over those in the lineage.
    """
    found: dict[str, Licence] = {}
    for node in lineage.walk():
        source = node.config.get("augmentation", {}).get("source", {})
        teacher = node.config.get("training", {}).get("objective", {}).get("teacher", {})
        for role, section in (("source", source), ("base", node.config.get("base", {})), ("teacher", teacher)):
            given = node.inputs.get(role)
            if given is not None and not given.ref.key and section:
                usual = PYTHON_LICENSE if section.get("kind") == "pydocs" else ""
                text = (stated or {}).get(given.ref.digest) or section.get("license") or usual
                kind = "data" if role == "source" else role
                found[given.ref.digest] = Licence(kind, given.ref.name, given.ref.digest, text)
    for node in lineage.walk():  # what no config describes, such as one whose manifest is damaged, is not hidden
        if not node.ref.key and node.ref.digest not in found:
            text = (stated or {}).get(node.ref.digest, "")
            found[node.ref.digest] = Licence("data", node.ref.name, node.ref.digest, text)
    return sorted(found.values(), key=lambda one: (one.role != "data", one.name, one.digest))


def joint_licence(licences: Sequence[Licence]) -> tuple[str, str]:
    """Return the one licence that all state, and ''; else 'other' and the names of what there is."""
    texts = {(one.text or NOT_STATED).casefold(): one.text or NOT_STATED for one in licences}
    if len(texts) == 1 and NOT_STATED not in texts:
        return next(iter(texts.values())), ""
    return "other", ", ".join(sorted(texts.values(), key=lambda text: (text == NOT_STATED, text.casefold())))
