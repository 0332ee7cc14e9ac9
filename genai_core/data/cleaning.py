"""Normalisation, before anything is compared or counted: Unicode repaired, line ends one, control characters gone.

    clean_text("cafÃ©\\r\\n\\x07bell")  ->  "café\\nbell"

Idempotent: clean_text(clean_text(x)) == clean_text(x).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from typing import Any

import ftfy

from genai_core.config.data import CleaningConfig
from genai_core.data.documents import Document

# C0 and C1 controls without tab and newline, the byte order mark, soft hyphens and bidirectional overrides
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069]")
TRAILING = re.compile(r"[ \t]+$", re.MULTILINE)
BLANK_LINES = re.compile(r"\n{4,}")
# Quotes stay as written (ftfy would straighten them): they are the author's, not an encoding fault.
REPAIR = ftfy.TextFixerConfig(uncurl_quotes=False, unescape_html=False, explain=False)
ROUNDS = 4


def clean_document(document: Document, config: CleaningConfig) -> Document:
    """Return the document with its text, title and fields normalised."""
    meta = dict(document.meta)
    if "fields" in meta:
        meta["fields"] = _clean_value(meta["fields"], config.fix_text)
    return replace(
        document,
        text=clean_text(document.text, repair=config.fix_text),
        title=clean_text(document.title, repair=config.fix_text),
        meta=meta,
    )


def clean_text(text: str, *, repair: bool = True) -> str:
    """Return the text in one form of Unicode (NFC) and of line ends, without control characters."""
    for _ in range(ROUNDS):
        before = text
        text = _clean_once(text, repair)
        # one repair may uncover another (text that was encoded wrongly twice); rarely more than two rounds
        if text == before:
            break
    return text


def _clean_once(text: str, repair: bool) -> str:
    if repair and not text.isascii():
        text = ftfy.fix_text(text, REPAIR)
    elif repair and "\x1b" in text:
        text = ftfy.fix_text(text, REPAIR)  # terminal escapes
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n\n")
    text = unicodedata.normalize("NFC", CONTROL.sub("", text))
    text = TRAILING.sub("", text)
    return BLANK_LINES.sub("\n\n\n", text).strip("\n")


def _clean_value(value: Any, repair: bool) -> Any:
    if isinstance(value, str):
        return clean_text(value, repair=repair)
    if isinstance(value, dict):
        return {name: _clean_value(item, repair) for name, item in value.items()}
    if isinstance(value, list):
        return [_clean_value(item, repair) for item in value]
    return value
