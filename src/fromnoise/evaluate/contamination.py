"""Did any evaluation question slip into the training conversations? Checked by looking, and shown as a column.

Four looks, from strict to loose: the question's text as a whole message, word for word; the same after normalising
(case, punctuation, spacing); the question's words, all and in order, in a longer message; and, where a question asks for a known
value, subject and value named together in one conversation, which would teach the answer in other words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from fromnoise.evaluate.intervals import Estimate, exact
from fromnoise.evaluate.questions import question_text

LOOKS = ("exact", "normalised", "contained", "subject_and_value")
_WORD = re.compile(r"\w+|[-+*/=<>](?=\s*\d)", re.UNICODE)


def normalise(text: str) -> str:
    """Words alone, and the signs before numbers (3 + 1 is not 3 - 1), lower case, compatibility forms folded, one space between."""
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def check(questions: Sequence[dict], conversations: Sequence[dict]) -> list[dict]:
    """For each question {"id", "exact", "normalised", "contained", "subject_and_value"}: True where it was found.

    questions: prompt records; `check` may carry "subject" and "accept", the values that count as right (absent: that
    look does not apply, recorded as None). conversations: {"messages": [...]}, all roles are searched.
    """
    messages = [message["content"] for conversation in conversations for message in conversation["messages"]]
    whole = set(messages)
    normal = {normalise(text) for text in messages}
    joined = "".join(f" {text} \n" for text in sorted(normal))
    padded = [f" {normalise(' '.join(m['content'] for m in c['messages']))} " for c in conversations]
    by_word: dict[str, list[int]] = {}  # the last word of a subject narrows the search to a few conversations
    for index, text in enumerate(padded):
        for word in sorted(set(text.split())):
            by_word.setdefault(word, []).append(index)
    found = []
    for question in questions:
        text = question_text(question)
        plain = normalise(text)
        subject, values = (question.get("check") or {}).get("subject"), (question.get("check") or {}).get("accept")
        together = None
        if subject and values:
            needle, wanted = f" {normalise(str(subject))} ", [f" {normalise(str(value))} " for value in values]
            near = [padded[i] for i in by_word.get(needle.split()[-1], ()) if needle in padded[i]]
            together = any(value in text for value in wanted for text in near)
        found.append(
            {
                "id": question["id"],
                "exact": text in whole,
                "normalised": plain in normal,
                "contained": bool(plain) and f" {plain} " in joined,
                "subject_and_value": together,
            }
        )
    return found


def summarise(found: Sequence[dict]) -> dict[str, Estimate]:
    """`contamination/LOOK`: how many of the questions were found (value) among those looked for (n)."""
    summary = {}
    for look in LOOKS:
        applicable = [record[look] for record in found if record[look] is not None]
        summary[f"contamination/{look}"] = exact(sum(applicable), len(applicable), "count of questions found in the training conversations")
    return summary
