"""The documents, and what stands in them: fenced blocks, command lines, headings, links."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, its text."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One command line of a bash block, its words without comment and `NAME=value` before it."""

    place: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.place} {shlex.join(self.words)}"


def blocks(page: Path, language: str = "") -> list[Block]:
    """Return the fenced blocks of a page, in order; only those of one language if it is given."""
    text = page.read_text(encoding="utf-8")
    found = [Block(page, text[: hit.start()].count("\n") + 1, hit[1], hit[2]) for hit in FENCE.finditer(text)]
    return [block for block in found if not language or block.language == language]


def commands(page: Path) -> list[Command]:
    """Return the command lines of a page's bash blocks."""
    found = []
    for block in blocks(page, "bash"):
        for number, line in enumerate(block.text.replace("\\\n", " ").splitlines(), block.line + 1):
            for part in re.split(r"&&|\|\||;", line.partition(" #")[0]):
                words = shlex.split(part, comments=True)
                while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                    words.pop(0)
                if words:
                    found.append(Command(f"{page.relative_to(ROOT)}:{number}", tuple(words)))
    return found


def without_blocks(page: Path) -> str:
    """Return a page's text without its fenced blocks and code spans."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))


def headings(page: Path) -> list[str]:
    """Return the headings of a page, without their marks."""
    return re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
