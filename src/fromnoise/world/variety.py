"""How varied a text is: compression, sentence skeletons, distinct words. The world's laws are measured with it."""

from __future__ import annotations

import lzma
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

# words kept in a skeleton; every other word is blanked
FUNCTION_WORDS = frozenset("""
a an the this that these those some any no every each all both either neither such what which who whom whose
i you he she it we they me him her us them my your his its our their mine yours myself himself herself itself themselves
and or but nor so yet for if unless until till while when where why how because although though since before after as than whether once
of in on at by with from to into onto out up down off over under about between among through across along behind beside near without within
around against during toward past inside outside upon beyond above below despite except like
is am are was were be been being have has had having do does did done will would shall should can could may might must ought
not never there here then now only just also too very
""".split())
_SENTENCE = re.compile(r"[^\n]+?(?:\.[\"']?|[?!])(?=\s+[\"'A-Z0-9]|\s*\n|\s*$)")  # `"...?" she asked.` is one sentence
_WORD = re.compile(r"[A-Za-z']+|\d+")
_LETTERS = re.compile(r"[A-Za-z']+")


@dataclass(frozen=True)
class Variety:
    num_bytes: int
    compression: float  # bytes : bytes compressed by xz (preset 9)
    num_sentences: int  # of three words or more
    top10_frac: float  # share of sentences that have one of the ten commonest skeletons
    distinct_frac: float  # different skeletons : sentences
    words_per_100k: float  # different words (lower case) among 100,000 words, mean over pieces


def skeleton(sentence: str) -> str:
    """Function words kept, every other word or number blanked: "She swept the yard" -> "she _ the _"."""
    return " ".join(word if word in FUNCTION_WORDS else "_" for word in map(str.lower, _WORD.findall(sentence)))


def sentences(text: str) -> list[str]:
    """Parts of lines that end with a full stop, question or exclamation mark and have at least three words (sums in figures are no sentences)."""
    return [part for part in _SENTENCE.findall(text) if len(_LETTERS.findall(part)) >= 3]


def measure(texts: Iterable[str], prose: Iterable[str] | None = None) -> Variety:
    """texts: everything, for compression and words; prose: what sentences are taken from (default: texts)."""
    texts = list(texts)
    joined = "\n\n".join(texts)
    data = joined.encode()
    skeletons = Counter(skeleton(s) for text in (texts if prose is None else prose) for s in sentences(text))
    num_sentences = sum(skeletons.values())
    words = re.findall(r"[a-z']+", joined.lower())
    pieces = [words[i:i + 100_000] for i in range(0, len(words) - 99_999, 100_000)] or [words]
    return Variety(len(data), len(data) / len(lzma.compress(data, preset=9)), num_sentences,
                   sum(count for _, count in skeletons.most_common(10)) / max(1, num_sentences), len(skeletons) / max(1, num_sentences),
                   sum(len(set(piece)) for piece in pieces) / len(pieces))
