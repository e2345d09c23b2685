"""A small template grammar: text with choices and slots, compiled to closures that are fast to call.

    "[When|As soon as] {s} {do.past}, {q} {do2.past} [|at once|with a sigh]."

`[a|b|]` picks one alternative (an empty one makes the rest optional), `{pool}` picks a string of a word pool,
`{pool.form}` a verb phrase of a pool in a form (base, s, past, pp, ing), `{name}` asks the scene (see scene.py).
`a~` becomes "a" or "an" by the word that follows. Everything is drawn from one `random()`; nothing else is random.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from .verbs import conjugate, plural

Part = str | Callable[[], str]
FORMS = {"base": 0, "s": 1, "past": 2, "pp": 3, "ing": 4}
_EXPAND = 48  # alternatives without slots are multiplied out up to this many strings


def call(part: Part) -> str:
    return part if part.__class__ is str else part()


class Grammar:
    """Word pools and verb phrases, and the compiler that turns templates into callables."""

    def __init__(self, rng: random.Random):
        self.random = rng.random
        self.pools: dict[str, Sequence[Part]] = {}
        self.verbs: dict[str, list[tuple]] = {}
        self.slots: dict[str, Callable[[], str]] = {}

    # --- filling -----------------------------------------------------------------------------------------------------
    def add_words(self, name: str, words: Sequence[str]) -> None:
        self.pools[name] = tuple(words)

    def add_phrases(self, name: str, templates: Sequence[str]) -> None:
        self.pools[name] = tuple(self.compile(template) for template in templates)

    def verb_phrase(self, template: str) -> tuple:
        """The forms of a phrase in base form, "mend the {fence}", and its rest, compiled; the first word is the verb."""
        verb, _, rest = template.partition(" ")
        return (*conjugate(verb), self.compile(" " + rest) if rest else "")

    # --- choosing ----------------------------------------------------------------------------------------------------
    def pick(self, items: Sequence):
        return items[int(self.random() * len(items))]

    def number(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        return self.random() < probability

    def sample(self, items: Sequence, count: int) -> list:
        """`count` different items, in random order."""
        left = list(items)
        chosen = []
        for _ in range(min(count, len(left))):
            index = int(self.random() * len(left))
            chosen.append(left[index])
            left[index] = left[-1]
            left.pop()
        return chosen

    def some(self, items: Sequence, count: int) -> list:
        """`count` different items in their written order."""
        return [items[index] for index in sorted(self.sample(range(len(items)), count))]

    # --- compiling ---------------------------------------------------------------------------------------------------
    def compile(self, template: str) -> Part:
        """Template -> a string (nothing to choose) or a callable that makes one."""
        part, end = self._sequence(template, 0, "")
        assert end == len(template), f"unbalanced brackets in {template!r}"
        return part

    def compile_all(self, templates: Sequence[str]) -> tuple[Part, ...]:
        return tuple(self.compile(template) for template in templates)

    def _sequence(self, text: str, start: int, stops: str) -> tuple[Part, int]:
        parts: list[Part] = []
        index = literal = start
        while index < len(text) and text[index] not in stops:
            letter = text[index]
            if letter not in "[{":
                index += 1
                continue
            if index > literal:
                parts.append(text[literal:index])
            if letter == "{":
                end = text.index("}", index)
                parts.append(self._slot(text[index + 1:end], text))
                index = end + 1
            else:
                part, index = self._choice(text, index + 1)
                parts.append(part)
            literal = index
        if index > literal:
            parts.append(text[literal:index])
        return self._join(parts), index

    def _choice(self, text: str, index: int) -> tuple[Part, int]:
        options: list[Part] = []
        while True:
            part, index = self._sequence(text, index, "|]")
            options.append(part)
            if index >= len(text):
                raise ValueError(f"unbalanced brackets in {text!r}")
            index += 1
            if text[index - 1] == "]":
                return self._chooser(options), index

    def _chooser(self, options: list[Part]) -> Part:
        random, count, choices = self.random, len(options), tuple(options)
        if count == 1:
            return choices[0]
        if all(option.__class__ is str for option in choices):
            chooser = lambda: choices[int(random() * count)]  # noqa: E731
            chooser.words = choices  # lets _join multiply small choices out
            return chooser

        def choose() -> str:
            option = choices[int(random() * count)]
            return option if option.__class__ is str else option()
        return choose

    def _slot(self, name: str, template: str) -> Part:
        random = self.random
        if name in self.slots:
            return self.slots[name]
        if name in self.pools:
            pool = self.pools[name]
            return self._chooser(list(pool))
        pool_name, _, form = name.rpartition(".")
        if form == "cap":  # the same with a capital letter
            part = self._slot(pool_name, template)
            return sentence(part) if part.__class__ is str else lambda: sentence(part())
        if name[-1] == "+" and name[:-1] in self.pools:  # plurals of a pool of nouns
            self.add_words(name, [plural(word) for word in self.pools[name[:-1]]])
            return self._slot(name, template)
        if pool_name in self.verbs and form in FORMS:
            phrases, which, count = self.verbs[pool_name], FORMS[form], len(self.verbs[pool_name])

            def verb() -> str:
                phrase = phrases[int(random() * count)]
                rest = phrase[5]
                return phrase[which] + (rest if rest.__class__ is str else rest())
            return verb
        raise KeyError(f"unknown slot {{{name}}} in {template!r}")

    def _join(self, parts: list[Part]) -> Part:
        merged: list[Part] = []
        for part in parts:  # neighbouring literals become one; small choices of literals are multiplied out
            words = (part,) if part.__class__ is str else getattr(part, "words", None)
            if words is not None and merged and len(words) <= _EXPAND:
                before = (merged[-1],) if merged[-1].__class__ is str else getattr(merged[-1], "words", None)
                if before is not None and len(before) * len(words) <= _EXPAND:
                    merged[-1] = self._chooser([left + right for left in before for right in words])
                    continue
            merged.append(part)
        if not merged:
            return ""
        if len(merged) == 1:
            return merged[0]
        pattern = "".join(part.replace("%", "%%") if part.__class__ is str else "%s" for part in merged)
        calls = tuple(part for part in merged if part.__class__ is not str)
        if len(calls) == 1:
            only = calls[0]
            return lambda: pattern % only()
        if len(calls) == 2:
            first, second = calls
            return lambda: pattern % (first(), second())
        return lambda: pattern % tuple([part() for part in calls])


_ARTICLES = (("a~use", "a use"), ("a~uni", "a uni"), ("a~one", "a one"), ("a~hour", "an hour"), ("a~honest", "an honest"),
             ("A~use", "A use"), ("A~one", "A one"), ("A~honest", "An honest"),
             *((f"{a}~{vowel}", f"{a}n {vowel}") for a in "aA" for vowel in "aeiouAEIOU"), ("a~", "a "), ("A~", "A "))


def finish(text: str) -> str:
    """Resolve `a~` marks and doubled spaces of optional parts."""
    if "a~" in text or "A~" in text:
        for mark, article in _ARTICLES:
            text = text.replace(mark, article)
    while "  " in text:
        text = text.replace("  ", " ")
    return _START.sub(_upper, text)


_START = re.compile(r"[a-z0-9][.?!] [a-z]")  # a sentence inside a frame that begins with a slot


def _upper(match: re.Match) -> str:
    return match.group()[:-1] + match.group()[-1].upper()


def sentence(text: str) -> str:
    """Capital first letter (after an opening quote mark too)."""
    if text[0] == '"':
        return '"' + text[1].upper() + text[2:]
    return text[0].upper() + text[1:]
