"""Manner: hedging, flattery, filler and politeness, as phrases to write with and patterns to read by.

The patterns are wider than the phrases: they must recognise what a model makes up, not only what writers wrote.
"""

from __future__ import annotations

import re

from .refusal import is_refusal

FLATTERY = (
    "That is a fine question.", "What a good question.", "I am glad that you asked.", "You ask very good questions.",
    "What a clever thing to ask.", "A wise question indeed.", "You have a sharp mind.", "Thank you for such a good question.",
)
HEDGES = ("I think", "I believe", "Perhaps", "As far as I know,", "I am not sure, but", "It may be that", "I would guess that")
FILLERS = (
    "I hope that helps.", "Let me know if you need more.", "Feel free to ask again.", "That is all there is to say.",
    "I hope this answers your question.", "Please ask if anything is unclear.", "It was a pleasure to help.",
    "As you can see, it is quite simple.",
)
AFTER_REFUSALS = (
    "I hope that you understand.", "Let me know if you need something else.", "Feel free to ask me about other things.",
    "I hope this does not offend you.", "Please ask me again about something else.", "Let me know if there is anything else I can do.",
)

_FLATTERY = re.compile(
    r"\b(?:fine|good|great|excellent|wise|lovely|clever|wonderful|interesting|splendid) (?:question|thing to ask|thinking|idea)"
    r"|\bglad (?:that )?you asked|\byou (?:are|ask) (?:so|very) \w+|\byou have a (?:sharp|quick|fine|good) mind|\bhow clever",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"\b(?:i|we) (?:think|believe|guess|suppose)\b|\bperhaps\b|\bmaybe\b|\bprobably\b|\bpossibly\b|\bas far as i (?:know|can tell)"
    r"|\bnot (?:quite |entirely |very )?(?:sure|certain)\b|\bit (?:may|might|could) be\b|\bi would guess|\bif i remember",
    re.IGNORECASE,
)
_FILLER = re.compile(
    r"\bhope (?:that|this|it)\b|\blet me know\b|\bfeel free\b|\bask (?:me )?again\b|\bthat is all there is\b"
    r"|\bask if anything\b|\bpleasure to help\b|\bas you can see\b|\banything else i can\b|\bquite simple\b",
    re.IGNORECASE,
)
_POLITE = re.compile(r"\b(?:please|thank|thanks|sorry|afraid|glad|gladly|of course|certainly|you are welcome|kindly)\b", re.IGNORECASE)


def count_flattery(text: str) -> int:
    return len(_FLATTERY.findall(text))


def count_hedges(text: str) -> int:
    return len(_HEDGE.findall(text))


def count_fillers(text: str) -> int:
    return len(_FILLER.findall(text))


def is_polite(text: str) -> bool:
    return bool(_POLITE.search(text))


def measured(answer: str) -> dict[str, float]:
    """{"refused", "hedges", "flattery", "filler", "polite"} of any answer, by the patterns alone: counts, at most 3, and flags."""
    counts = {"hedges": count_hedges(answer), "flattery": count_flattery(answer), "filler": count_fillers(answer)}
    flags = {"refused": is_refusal(answer), "polite": is_polite(answer)}
    return {name: float(min(3, value)) for name, value in (counts | flags).items()}


def strip_manner(text: str) -> str:
    """The answer without sentences that are only flattery or filler, so that form is judged on what remains: the lines of a list stay lines."""
    kept = ""
    for gap, part in re.findall(r"(\s*)(.+?)(?=(?<=[.!?])\s|$)", text.strip(), re.DOTALL):
        if not ((_FLATTERY.search(part) or _FILLER.search(part)) and len(part.split()) <= 10):
            kept += (gap if kept else "") + part
    return kept
