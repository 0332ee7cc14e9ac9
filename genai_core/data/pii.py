"""Personal data becomes typed placeholders: <EMAIL_1>, <PHONE_1>, <IP_1>, <IBAN_1>, <CARD_1>.

    "Write to ann@corp.io or bob@corp.io; ann@corp.io answers."
        -> "Write to <EMAIL_1> or <EMAIL_2>; <EMAIL_1> answers."

The same value has the same placeholder within a document. Placeholders match no pattern, so masking is idempotent.
Precision comes first: a number is only taken where its checksum (Luhn, mod 97), its shape or the word before it
says what it is; version and section numbers, private addresses and reserved example domains stay.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from genai_core.data.documents import Document

PLACEHOLDER = re.compile(r"<(EMAIL|PHONE|IP|IBAN|CARD)_(\d+)>")

EMAIL = re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+%-]*@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,24}(?![\w-])", re.ASCII)
RESERVED_DOMAIN = re.compile(r"(^|[@.])(example(\.(com|org|net|edu))?|test|invalid|localhost|local)$", re.IGNORECASE)
IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)", re.ASCII)
IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){3,7}[0-9A-Fa-f]{1,4}(?![\w:])", re.ASCII)
NUMBERED = re.compile(r"(?:version|release|section|chapter|part|clause|rfc|oid|python|§|\bv)[\s.:=]*$", re.IGNORECASE)
ADDRESSED = re.compile(
    r"\b(?:ip|ipv4|address|host|server|from|ping|via|client|gateway)\b[\s\w.:=(]{0,12}$", re.IGNORECASE
)
IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)", re.ASCII)
CARD = re.compile(
    r"(?<![\w.-])(?:\d{4}[ -]\d{4}[ -]\d{4}[ -]\d{4}|3[47]\d{2}[ -]\d{6}[ -]\d{5}|\d{15,16})(?![\w-]|\.\d)", re.ASCII
)
ISSUER = re.compile(r"(?:4|5[1-5]|2[2-7]|6011|65|3[47]|35)", re.ASCII)
PHONE_INTERNATIONAL = re.compile(r"(?<![\w+.])\+[1-9]\d{0,2}(?:[ .-]?\(?\d{1,4}\)?){2,6}(?![\w(]|[.-]\d)", re.ASCII)
PHONE_AMERICAN = re.compile(r"(?<![\w.(-])(?:\([2-9]\d{2}\) ?|[2-9]\d{2}-)[2-9]\d{2}-\d{4}(?![\w-])", re.ASCII)


@dataclass
class Masker:
    """The placeholders of one document."""

    numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def reserve(self, text: str) -> None:
        """Number on above the placeholders that the text has already."""
        for kind, number in PLACEHOLDER.findall(text):
            self.counts[kind] = max(self.counts.get(kind, 0), int(number))

    def mask(self, text: str) -> str:
        """Return the text with placeholders."""
        # longest and most certain first: an IBAN contains what looks like a card
        text = self._replace(text, "EMAIL", EMAIL, _is_email)
        text = self._replace(text, "IBAN", IBAN, _is_iban)
        text = self._replace(text, "CARD", CARD, _is_card)
        text = self._replace(text, "IP", IPV4, _is_ipv4)
        text = self._replace(text, "IP", IPV6, _is_ipv6)
        text = self._replace(text, "PHONE", PHONE_INTERNATIONAL, _is_international)
        return self._replace(text, "PHONE", PHONE_AMERICAN, lambda found: True)

    def _replace(self, text: str, kind: str, pattern: re.Pattern[str], holds: Callable[[re.Match[str]], bool]) -> str:
        return pattern.sub(
            lambda found: self._placeholder(kind, found.group()) if holds(found) else found.group(), text
        )

    def _placeholder(self, kind: str, value: str) -> str:
        key = kind, re.sub(r"[\s()-]", "", value).lower()
        if key not in self.numbers:
            self.counts[kind] = self.counts.get(kind, 0) + 1
            self.numbers[key] = self.counts[kind]
        return f"<{kind}_{self.numbers[key]}>"

    @property
    def masked(self) -> int:
        """Return how many different values were masked."""
        return len(self.numbers)


def mask_text(text: str) -> str:
    """Return the text with personal data as typed placeholders."""
    masker = Masker()
    masker.reserve(text)
    return masker.mask(text)


def mask_document(document: Document) -> tuple[Document, int]:
    """Return the document with text, title and fields masked alike, and how many different values were masked."""
    masker = Masker()
    for text in _strings([document.text, document.title, document.meta.get("fields")]):
        masker.reserve(text)
    meta = dict(document.meta)
    text, title = masker.mask(document.text), masker.mask(document.title)
    if "fields" in meta:
        meta["fields"] = _mask_value(meta["fields"], masker)
    # A group decides sides, so two authors must not become one placeholder: a name with an address in it is hashed.
    group = document.group
    if mask_text(group) != group:
        group = "group-" + hashlib.sha256(group.encode()).hexdigest()[:16]
    if not masker.masked and group == document.group:
        return document, 0
    return replace(document, text=text, title=title, group=group, meta=meta), masker.masked


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _mask_value(value: Any, masker: Masker) -> Any:
    if isinstance(value, str):
        return masker.mask(value)
    if isinstance(value, dict):
        return {name: _mask_value(item, masker) for name, item in value.items()}
    if isinstance(value, list):
        return [_mask_value(item, masker) for item in value]
    return value


def _is_email(found: re.Match[str]) -> bool:
    return not RESERVED_DOMAIN.search(found.group().rpartition("@")[2])


def _is_ipv4(found: re.Match[str]) -> bool:
    octets = found.group().split(".")
    if any(int(octet) > 255 or (len(octet) > 1 and octet[0] == "0") for octet in octets):
        return False
    before = found.string[max(0, found.start() - 24) : found.start()]
    # four small numbers are a version or a section more often than an address, unless a word says otherwise
    if NUMBERED.search(before) or not (any(int(octet) >= 100 for octet in octets) or ADDRESSED.search(before)):
        return False
    return ipaddress.IPv4Address(found.group()).is_global


def _is_ipv6(found: re.Match[str]) -> bool:
    try:
        address = ipaddress.IPv6Address(found.group())
    except ValueError:
        return False
    return address.is_global and any(sign.isdigit() for sign in found.group())


def _is_iban(found: re.Match[str]) -> bool:
    value = found.group().replace(" ", "")
    if not 15 <= len(value) <= 34:
        return False
    return int("".join(str(int(sign, 36)) for sign in value[4:] + value[:4])) % 97 == 1


def _is_card(found: re.Match[str]) -> bool:
    digits = re.sub(r"[ -]", "", found.group())
    if not ISSUER.match(digits) or (len(digits) == 15) != (digits[:2] in ("34", "37")) or len(set(digits)) < 2:
        return False
    return luhn(digits)


def luhn(digits: str) -> bool:
    """Return whether the last digit is the Luhn check digit of those before it (ISO/IEC 7812-1, annex B)."""
    total = 0
    for index, sign in enumerate(reversed(digits)):
        value = int(sign) * (2 if index % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _is_international(found: re.Match[str]) -> bool:
    digits = re.sub(r"\D", "", found.group())
    return 9 <= len(digits) <= 15  # E.164 allows 15 digits with the country code; shorter ones are sums like +1 234
