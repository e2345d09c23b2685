"""Showing what a model wrote without letting it do anything else."""

from __future__ import annotations

import unicodedata

# Marks that reorder what a reader sees (Unicode's bidirectional controls): an answer could show one thing and be another.
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: str) -> str:
    """`text` with everything that is not print made harmless: safe for a terminal, a log line, a page.

    Line feeds and tabs stay, and Windows' line ends are line feeds. Other control characters appear as their pictures (ESC as U+241B), so that an escape
    sequence from a model cannot move the cursor, retitle the window or write to the clipboard; C1 controls, direction
    marks, lone surrogates and private or unassigned characters appear as U+FFFD.
    """
    return "".join(_shown(character) for character in text.replace("\r\n", "\n"))


def _shown(character: str) -> str:
    code = ord(character)
    if character in "\n\t" or 0x20 <= code < 0x7F:
        return character
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if character in _BIDI or unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn"):
        return "\ufffd"
    return character
