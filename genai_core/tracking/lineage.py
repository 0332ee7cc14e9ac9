"""From an artifact back to everything that made it: datasets, sources, configs, commits, parents.

Read from the manifests in the artifact store, so it is true also when MLflow was lost:

    manifest(key)["told"] = {"stage": "tune", "config": {...}, "commit": "3f9c2a7...", "inputs": {role: reference, ...}}

What several artifacts stand on (the corpus, the base) is one node; where it comes up again it is named only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from genai_core.errors import StorageError
from genai_core.storage.artifact import ArtifactRef
from genai_core.tracking.secrets import masked, shown


@dataclass(frozen=True)
class Node:
    """One artifact or source, and what it was made from."""

    ref: ArtifactRef
    stage: str = ""
    """Stage that made it; '' for a source."""
    commit: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Node] = field(default_factory=dict)
    missing: str = ""
    """Why the line ends here although it should not: the manifest is gone or damaged. '' otherwise."""

    @property
    def identity(self) -> str:
        """Return what makes this node the same node elsewhere: its stage key, for a source its digest."""
        return self.ref.key or self.ref.digest

    def walk(self) -> Iterator[Node]:
        """Yield this node and all before it, each once, newest first."""
        seen: set[str] = set()
        waiting = [self]
        while waiting:
            node = waiting.pop(0)
            if node.identity not in seen:
                seen.add(node.identity)
                yield node
                waiting.extend(node.inputs[role] for role in sorted(node.inputs))

    def nested(self) -> dict[str, Any]:
        """Return the tree as JSON; a node that came up before is `{"ref": ..., "above": true}`."""
        return _nested(self, set())

    def lines(self) -> list[str]:
        """Return the tree as indented text, one line a node."""
        return [f"{'  ' * depth}{text}" for depth, text in _lines(self, 0, "", set())]

    def markdown(self) -> str:
        """Return the tree as a Markdown list."""
        # four spaces: with two MLflow's page puts an entry beside the one that it belongs under
        return "\n".join(f"{'    ' * depth}- {text}" for depth, text in _lines(self, 0, "", set(), code="`"))


Manifest = Callable[[str], Mapping[str, Any] | None]
"""The manifest of a stage key; None, KeyError or StorageError if there is none."""


def lineage(manifest: Manifest, ref: ArtifactRef) -> Node:
    """Return the node of an artifact with everything before it."""
    return _trace(manifest, ref, {})


def _trace(manifest: Manifest, ref: ArtifactRef, known: dict[str, Node]) -> Node:
    identity = ref.key or ref.digest
    if identity not in known:
        known[identity] = _read(manifest, ref, known)
    return known[identity]


def _read(manifest: Manifest, ref: ArtifactRef, known: dict[str, Node]) -> Node:
    if not ref.key:
        return Node(ref)
    try:
        found = manifest(ref.key)
    except (KeyError, StorageError) as error:
        return Node(ref, missing=f"manifest cannot be read: {error}")
    if found is None:
        return Node(ref, missing="manifest is gone")
    told = found.get("told", {})
    inputs = {
        role: _trace(manifest, ArtifactRef.model_validate(value), known)
        for role, value in sorted(told.get("inputs", {}).items())
    }
    return Node(
        ref,
        stage=str(told.get("stage", "")),
        commit=str(told.get("commit", "")),
        config=masked(told.get("config", {})),
        inputs=inputs,
    )


def _nested(node: Node, seen: set[str]) -> dict[str, Any]:
    ref = node.ref.model_dump(mode="json") | {"uri": shown(node.ref.uri)}
    if node.identity in seen:
        return {"ref": ref, "above": True}
    seen.add(node.identity)
    out: dict[str, Any] = {"ref": ref}
    for name in ("stage", "commit", "missing"):
        if getattr(node, name):
            out[name] = getattr(node, name)
    if node.config:
        out["config"] = dict(node.config)
    if node.inputs:
        out["inputs"] = {role: _nested(node.inputs[role], seen) for role in sorted(node.inputs)}
    return out


def _lines(node: Node, depth: int, role: str, seen: set[str], code: str = "") -> Iterator[tuple[int, str]]:
    text = f"{role}: " if role else ""
    text += f"{node.ref.kind} {code}{node.ref.label()}{code}"
    if node.identity in seen:
        yield depth, f"{text} (see above)"
        return
    seen.add(node.identity)
    facts = [node.stage, f"commit {node.commit[:12]}" if node.commit else "", f"sha256 {node.ref.digest[:12]}"]
    if not node.ref.key:
        address = shown(node.ref.uri)
        # anybody's words, so in code, which a backtick would end
        facts.append(f"{code}{address.replace(code, chr(39))}{code}" if code else address)
    if node.missing:
        facts.append(f"LINE ENDS HERE: {node.missing}")
    yield depth, f"{text} ({', '.join(fact for fact in facts if fact)})"
    for name in sorted(node.inputs):
        yield from _lines(node.inputs[name], depth + 1, name, seen, code)
