"""Dotted names that nobody can have learned by heart, out of the words of names that exist.

    asyncio.StreamReader  +  email.policy.EmailPolicy  +  textwrap.TextWrapper   ->   email.policy.StreamWrapper
    json.load_pairs       +  os.path.join_parts        +  inspect.get_members    ->   os.path.load_members

A model that was tuned on calls of known objects writes a name that it remembers where it should copy the one it is shown.
A request about an object of an invented name can only be answered by reading the prompt.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterable

_WORDS = re.compile(r"_*(?:[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+)_*|_+")
_DRAWS = 20


class InventedNames:
    """Draws invented names."""

    def __init__(self, known: Iterable[str], taken: Collection[str]) -> None:
        """Learn the words of known dotted names.

        Args:
            known: names of one part ("len") or more ("textwrap.shorten"); with fewer than two of a style nothing is drawn.
            taken: names that exist, which are never drawn.
        """
        self._taken = taken
        names = sorted(set(known))
        self._places = sorted({name.rpartition(".")[0] for name in names})
        self._heads: dict[bool, list[str]] = {True: [], False: []}
        self._tails: dict[bool, list[str]] = {True: [], False: []}
        for last in sorted({name.rpartition(".")[2] for name in names}):
            words, is_class = _WORDS.findall(last), last.lstrip("_")[:1].isupper()
            for cut in range(1, len(words)):
                self._heads[is_class].append("".join(words[:cut]))
                self._tails[is_class].append("".join(words[cut:]))

    def draw(self, like: str, rng: random.Random) -> str | None:
        """Return a new name, that of a class if `like` is one; None if the known names give none."""
        is_class = like.rpartition(".")[2].lstrip("_")[:1].isupper()
        heads, tails = self._heads[is_class], self._tails[is_class]
        if not heads:
            return None
        for _ in range(_DRAWS):
            place, last = rng.choice(self._places), rng.choice(heads) + rng.choice(tails)
            name = f"{place}.{last}" if place else last
            if name not in self._taken and last.isidentifier():
                return name
        return None
