"""Reading an answer: words, sentences, values named in it, negation."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

_WORD = re.compile(r"[A-Za-z0-9]+(?:['’-][A-Za-z0-9]+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]*(?:\s+|$)")
_NEGATION = re.compile(r"\b(?:not|never|no longer|cannot|nobody|no one|neither|nor|without)\b|n['’]t\b", re.IGNORECASE)
NOT_A_DENIAL = re.compile(r"\bnot (?:sure|certain|quite sure|mistaken|wrong)\b", re.IGNORECASE)
_BREAK = re.compile(r"[,;:]|\b(?:but|although|though|because)\b", re.IGNORECASE)
# Words that may open a sentence with a capital without being a name.
OPENING = frozenset("""
a an the in on at to of by for from with and but or so as if when after before then there this that these those it its he she they
we you i his her their our your my who what where which yes no well sure certainly perhaps maybe probably answer question one two
three nothing nobody everyone people some many most all each thank thanks sorry please here now today once also only not just
according good fine let read since well-known is was does it's that's he's she's i'd i'm
""".split())


def words(text: str) -> list[str]:
    """Words as written; hyphens and apostrophes stay inside."""
    return _WORD.findall(text)


def lower_words(text: str) -> list[str]:
    return [word.lower() for word in words(text)]


def sentences(text: str) -> list[str]:
    """Split after . ! ? followed by space or the end. "1. one" counts as a list mark, not as a sentence."""
    flat = re.sub(r"(?m)^\s*\d+[.)]\s+", "", text.strip())
    return [part.strip() for part in _SENTENCE_END.split(flat) if part.strip()]


@lru_cache(maxsize=4096)
def _value_pattern(value: str) -> re.Pattern[str]:
    body = r"\s+".join(re.escape(part) for part in value.split())
    return re.compile(rf"(?<![\w-]){body}(?:s|es)?(?![\w-])", re.IGNORECASE)


def find_value(value: str, text: str) -> re.Match[str] | None:
    """The value as whole words, in any case, with a plural ending allowed; never inside a longer word."""
    return _value_pattern(value).search(text)


def named(values: Iterable[str], text: str) -> list[str]:
    """Which of the values the text names, in the given order; a value inside a longer named one ("egg" in "egg
    noodles") is not counted."""
    found, lowered = [], text.lower()
    for value in values:
        if value.lower() in lowered:
            match = find_value(value, text)
            if match:
                found.append((value, [m.span() for m in _value_pattern(value).finditer(text)]))
    kept = []
    for value, spans in found:
        longer = [span for other, others in found if len(other) > len(value) for span in others]
        if any(not any(a <= start and end <= b for a, b in longer) for start, end in spans):
            kept.append(value)
    return kept


def is_denied(value: str, text: str) -> bool:
    """True when each sentence that names the value denies it ("She does not live in Tolby."): a negation stands
    before the value in its clause, or the sentence opens with "It is false/wrong that"."""
    naming = [sentence for sentence in sentences(text) if find_value(value, sentence)]
    return bool(naming) and all(_denies(sentence, value) for sentence in naming)


def _denies(sentence: str, value: str) -> bool:
    match = find_value(value, sentence)
    before = NOT_A_DENIAL.sub(" ", sentence[: match.start()])
    after = sentence[match.end() :]
    clause = _BREAK.split(before)[-1]
    wrong = re.search(r"\b(?:false|wrong|untrue|a lie)\b", before + " " + after, re.IGNORECASE)
    return bool(_NEGATION.search(clause)) or bool(wrong) or bool(re.match(r"\s*(?:is|was) not\b|\s*isn['’]t\b", after))


def mask(text: str, names: Iterable[str]) -> str:
    """The text without the given names (as written, case kept), so that Ann Baker is no baker. Longest first."""
    parts = {part for name in names for part in (name, *name.split())}
    for part in sorted(parts, key=lambda p: (-len(p), p)):
        if part in text:  # compiling a pattern for every name costs more than all else here
            text = re.sub(rf"(?<![\w-]){re.escape(part)}(?:['’]s)?(?![\w-])", "_", text)
    return text


def foreign_names(text: str, known: str) -> list[str]:
    """Capitalised words that stand neither in `known` (question, passage, values) nor open a sentence as an ordinary
    word: an answer about somebody else gives itself away by them."""
    known_words = {word for part in words(known) for word in (part.lower(), part.lower().removesuffix("'s"))}
    strange = []
    for sentence in sentences(text):
        for position, word in enumerate(words(sentence)):
            plain = word.lower().removesuffix("'s").removesuffix("’s")
            if not word[0].isupper() or plain in known_words or plain in OPENING:
                continue
            if position == 0 and not _acts(words(sentence)):
                continue  # an ordinary first word: "Certainly", "Baker."
            strange.append(word)
    return strange


def _acts(sentence_words: list[str]) -> bool:
    """Does the sentence read Name [Name] verb ...?"""
    verbs = {"is", "was", "lives", "has", "works", "keeps", "plays", "likes", "owns", "does", "had", "went", "bought", "sold",
             "grows", "lost", "came", "comes", "prefers", "earns", "looks", "made", "found", "took", "calls", "makes"}
    return any(word in verbs for word in sentence_words[1:3])


def repetition(text: str) -> float:
    """Fraction of word trigrams that occurred before in the text; 0 for texts of fewer than six words."""
    tokens = lower_words(text)
    if len(tokens) < 6:
        return 0.0
    grams = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
    return 1.0 - len(set(grams)) / len(grams)


def content_words(text: str) -> set[str]:
    """Lower-case words of four letters or more, for overlap tests (membership only)."""
    return {word for word in lower_words(text) if len(word) >= 4}
