"""Did anything that is measured slip into what is trained on? Checked by looking, and shown as a column.

Three looks at every evaluation prompt, from strict to loose: its messages word for word, one after another; the same after
normalising (case, punctuation, spacing); its words, all and in order, in longer messages. Looked through are the conversations of
instruction tuning and the prompts of the later stages. Where a question asks for a known value there is a fourth look: subject and
value named together in one conversation, which would teach the answer in other words. The text of pretraining is not looked through.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from fromnoise.evaluate.intervals import Estimate, exact
from fromnoise.evaluate.questions import question_text

TEXT_LOOKS = ("exact", "normalised", "contained")
LOOKS = (*TEXT_LOOKS, "subject_and_value")
RUN_WORDS = 6  # a prompt is looked up by so many first words, and compared whole where they stand
_WORD = re.compile(r"\w+|[-+*/=<>](?=\s*\d)", re.UNICODE)


def normalise(text: str) -> str:
    """Words alone, and the signs before numbers (3 + 1 is not 3 - 1), lower case, compatibility forms folded, one space between."""
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def look_for(asked: Sequence[Sequence[str]], trained: Sequence[Sequence[str]]) -> list[dict[str, bool]]:
    """For each of `asked` {"exact", "normalised", "contained"}: True where it was found in `trained`. Both are conversations, each a
    sequence of messages' texts; all roles are searched. Takes time in proportion to the words of `trained`."""
    found = [dict.fromkeys(TEXT_LOOKS, False) for _ in asked]
    plain = [tuple(map(normalise, messages)) for messages in asked]
    whole = {"exact": _places(map(tuple, asked)), "normalised": _places(plain)}
    needles = [_words(messages) for messages in plain]
    runs = {size: _places(tuple(words[:size]) if min(RUN_WORDS, len(words)) == size else () for words in needles) for size in range(1, RUN_WORDS + 1)}
    waiting = {size: set(places) - {(), ("",)} for size, places in runs.items()}
    sizes = sorted({len(messages) for messages in asked})
    for messages in trained:
        forms = {"exact": tuple(messages), "normalised": tuple(map(normalise, messages))}
        for look, form in forms.items():
            for i in (i for size in sizes for at in range(len(form) - size + 1) for i in whole[look].get(form[at : at + size], ())):
                found[i][look] = True
        words = _words(forms["normalised"])
        text = f" {' '.join(words)} "
        for size, starts in waiting.items():
            for run in starts.intersection(zip(*(words[at:] for at in range(size)), strict=False)) if starts else ():
                for i in runs[size][run]:
                    found[i]["contained"] = found[i]["contained"] or f" {' '.join(needles[i])} " in text
    return found


def _places(texts: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], list[int]]:
    places: dict[tuple[str, ...], list[int]] = {}
    for i, text in enumerate(texts):
        places.setdefault(text, []).append(i)
    return places


def _words(messages: Sequence[str]) -> list[str]:
    """Words of normalised messages, a line end between two messages, so that nothing is found across them by chance."""
    return " \n ".join(messages).split(" ")


def check(questions: Sequence[dict], conversations: Sequence[dict]) -> list[dict]:
    """For each question {"id", "exact", "normalised", "contained", "subject_and_value"}: True where it was found.

    questions: prompt records; `check` may carry "subject" and "accept", the values that count as right (absent: that
    look does not apply, recorded as None). conversations: {"messages": [...]}, all roles are searched.
    """
    found = look_for([[question_text(question)] for question in questions], _texts(conversations))
    padded = [f" {normalise(' '.join(m['content'] for m in c['messages']))} " for c in conversations]
    by_word: dict[str, list[int]] = {}  # the last word of a subject narrows the search to a few conversations
    for index, text in enumerate(padded):
        for word in sorted(set(text.split())):
            by_word.setdefault(word, []).append(index)
    records = []
    for question, looks in zip(questions, found, strict=True):
        subject, values = (question.get("check") or {}).get("subject"), (question.get("check") or {}).get("accept")
        together = None
        if subject and values:
            needle, wanted = f" {normalise(str(subject))} ", [f" {normalise(str(value))} " for value in values]
            near = [padded[i] for i in by_word.get(needle.split()[-1], ()) if needle in padded[i]]
            together = any(value in text for value in wanted for text in near)
        records.append({"id": question["id"], **looks, "subject_and_value": together})
    return records


def check_sets(sets: Mapping[str, Sequence[dict]], trained: Mapping[str, Sequence[dict]]) -> list[dict]:
    """One {"set", "id", NAME: {"exact", "normalised", "contained"}, ...} for each prompt of `sets`, NAME being those of `trained`.

    sets: prompts by what they measure, {"id", "messages"} or, of a problem, {"id", "prompt"}; trained: {"messages": [...]} each.
    """
    asked = [(name, one["id"], _texts([one])[0] if "messages" in one else [one["prompt"]]) for name, prompts in sets.items() for one in prompts]
    looks = {name: look_for([texts for _, _, texts in asked], _texts(material)) for name, material in trained.items()}
    return [{"set": name, "id": key, **{material: found[i] for material, found in looks.items()}} for i, (name, key, _) in enumerate(asked)]


def _texts(conversations: Sequence[dict]) -> list[list[str]]:
    return [[message["content"] for message in conversation["messages"]] for conversation in conversations]


def summarise(found: Sequence[dict]) -> dict[str, Estimate]:
    """`contamination/LOOK`: how many of the questions were found (value) among those looked for (n)."""
    summary = {}
    for look in LOOKS:
        applicable = [record[look] for record in found if record[look] is not None]
        summary[f"contamination/{look}"] = exact(sum(applicable), len(applicable), "count of questions found in the training conversations")
    return summary


def summarise_sets(records: Sequence[dict]) -> dict[str, Estimate]:
    """`contamination/SET/MATERIAL/LOOK`: how many of the set's prompts (n) were found (value) there."""
    counts: dict[str, list[bool]] = {}
    for record in records:
        for material in (name for name in record if name not in ("set", "id")):
            for look, seen in record[material].items():
                counts.setdefault(f"contamination/{record['set']}/{material}/{look}", []).append(seen)
    return {name: exact(sum(seen), len(seen), "count of prompts found, by looking") for name, seen in counts.items()}
