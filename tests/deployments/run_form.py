"""Prefect's run form as a person reads it: fields by their labels, what is pressed by its text; and what a run was given."""

from __future__ import annotations

import json
from typing import Any

CONTROL = """(e => ["INPUT", "TEXTAREA"].includes(e.tagName) || e.getAttribute("aria-haspopup") === "listbox"
  || ["switch", "tab"].includes(e.getAttribute("role")))"""
FIND = """(() => {
  const wanted = LABELS, all = [...document.querySelectorAll("body *")];
  let at = 0;
  for (let i = 0; i < all.length; i++) {
    const own = [...all[i].childNodes].filter(n => n.nodeType === 3).map(n => n.textContent).join("").trim();
    if (own === wanted[at] && ++at === wanted.length) return all.slice(i).find(CONTROL);
  }
  return null;
})()"""


def field(*labels: str) -> str:
    """Return the expression of the control under labels, each looked for behind the one before, as a person reads down."""
    return FIND.replace("LABELS", json.dumps(labels)).replace("CONTROL", CONTROL)


def button(text: str, role: str = "button") -> str:
    """Return the expression of what is pressed under a text."""
    return f"[...document.querySelectorAll('button, [role={role}]')].find(e => e.textContent.trim() === {text!r})"


def differences(before: Any, after: Any, place: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the places in which two values differ, with both."""
    if isinstance(before, dict) and isinstance(after, dict):
        return {
            where: both
            for name in before.keys() | after.keys()
            for where, both in differences(before.get(name), after.get(name), f"{place}.{name}".strip(".")).items()
        }
    return {} if before == after else {place: (before, after)}
