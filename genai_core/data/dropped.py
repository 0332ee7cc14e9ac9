"""What was dropped and why: a count for every reason, a few documents to look at."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from genai_core.data.documents import Document
from genai_core.data.pii import mask_text

SAMPLES = 5
SAMPLE_CHARS = 600


@dataclass
class Dropped:
    """Every dropped document passes here once."""

    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    samples: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))

    def drop(self, document: Document, reason: str, **detail: Any) -> None:
        """Count a document, and keep the first few of each reason. Samples are masked: they are published."""
        self.counts[reason] += 1
        if len(self.samples[reason]) < SAMPLES:
            text = mask_text(document.text[: 2 * SAMPLE_CHARS])[:SAMPLE_CHARS]
            self.samples[reason].append({"doc_id": document.doc_id, "text": text, **detail})

    def total(self) -> int:
        """Return the number of dropped documents."""
        return sum(self.counts.values())
