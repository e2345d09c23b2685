"""A question with one right value out of a closed set, asked from memory."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from . import forms
from .example import Example, Verdict
from .text import OPENING, foreign_names, is_denied, lower_words, mask, named
from .unknown import is_admission

LEADS = ("", "", "", "", "Tell me: ", "I would like to know: ", "Quick question: ", "A question: ", "Please tell me: ")


def pick_form(value: str, rng: random.Random, plain_frac: float = 0.7) -> str:
    if rng.random() < plain_frac:
        return "free"
    return rng.choice(("word" if len(value.split()) == 1 else "short", "sentence"))


def ideal(form: str, value: str, sentence: str) -> str:
    """In one word or a few: the value alone, spelled as in running text, so that it can be taken from there."""
    return value if form in ("word", "short") else sentence


def make_check(form: str, relation: str, value: str, subject: str, question: str, others: Sequence[str] = ()) -> dict:
    """others: wrong values at hand (in a passage) beyond the relation's own set, which the judge supplies."""
    return {"form": form, "relation": relation, "accept": [value], "subject": subject, "question": question,
            "others": list(others)}


def example(rng: random.Random, question: str, sentence: str, value: str, subject: str, relation: str, mentions: int,
            source_id: str, plain_frac: float = 0.7) -> Example:
    form = pick_form(value, rng, plain_frac)
    lead = rng.choice(LEADS)
    asked = question if not lead or lead.endswith(": ") else question[0].lower() + question[1:]
    prompt = " ".join(part for part in (lead.strip(), asked, forms.ask(form, rng)) if part)
    return Example("fact", prompt, ideal(form, value, sentence), make_check(form, relation, value, subject, question),
                   f"Question: {question}\nAnswer:", mentions, (form,), source_id)


SOURCES = ("Somebody told me", "A friend says", "My neighbour says", "I was told", "The clerk says", "My answer is", "I wrote down", "One answer is")
ASKED = ("Is that right?", "Is that true?", "Right or wrong?", "Is that correct?", "Can that be right?")
AGREED = ("Yes, that is right.", "That is right.", "Yes.", "Right.")
CORRECTED = ("No. {a}", "That is wrong. {a}", "Wrong. {a}", "No, that is wrong. {a}")


def claim(rng: random.Random, question: str, sentence: str, claimed: str, right: bool, value: str, subject: str, relation: str,
          others: Sequence[str] = (), lead: str = "") -> Example:
    """Somebody's answer to a question, to be confirmed or put right. sentence: the right answer; claimed: the one to be judged, equal in wording or
    not; lead: what stands before it, a passage or nothing."""
    answer = rng.choice(AGREED) if right else rng.choice(CORRECTED).format(a=sentence)
    prompt = f"{lead}{question} {rng.choice(SOURCES)}: {claimed} {rng.choice(ASKED)}"
    check = make_check("free", relation, value, subject, question, others) | {"claimed_right": right}
    return Example("claim", prompt, answer, check, "", None, ("right" if right else "wrong",))


def verify_claim(check: dict, answer: str) -> Verdict:
    """Agreed to what is right; or denied what is wrong and named the right value."""
    said = " ".join(lower_words(answer)[:3])
    agrees, denies = said.startswith(("yes", "right", "that is right")), said.startswith(("no", "wrong", "that is wrong"))
    correct = agrees if check["claimed_right"] else denies and bool(named(check["accept"], answer))
    return Verdict(correct, agrees or denies, forms.form_ok(check["form"], answer))


def verify(check: dict, answer: str, vocabulary: Sequence[str] = ()) -> Verdict:
    """Right: the value is named and not denied, no other candidate value is, nobody else is spoken of, and it is an
    answer rather than a question or an admission. vocabulary: all candidate values of the relation."""
    text = mask(answer, [check["subject"]])
    accept = check["accept"]
    rivals = [value for value in dict.fromkeys([*check["others"], *vocabulary]) if value not in accept]
    in_play = named([*accept, *rivals], text)
    right = [value for value in in_play if value in accept]
    known = " ".join([check["subject"], check["question"], *accept, *rivals])
    correct = (
        bool(right)
        and not any(value in rivals for value in in_play)
        and not is_denied(right[0], text)
        and "?" not in answer
        and not is_admission(answer)
        and not foreign_names(answer, known)
        and not _other_subject(check, answer)
    )
    first, last = check["subject"].split()[0], check["subject"].split()[-1]
    about = set(lower_words(answer)) & {first.lower(), last.lower(), f"{first.lower()}'s", f"{last.lower()}'s"}
    return Verdict(correct, bool(in_play) or bool(about), forms.form_ok(check["form"], answer))


def _other_subject(check: dict, answer: str) -> bool:
    """A namesake: "Mara Webb" or "Hugh Fenn" where Mara Fenn was asked about."""
    first, last = check["subject"].split()[0], check["subject"].split()[-1]
    values = {word for value in (*check["accept"], *check["others"]) for word in value.split()}
    pairs = re.findall(r"(?=\b([A-Z][a-z]+) ([A-Z][a-z]+)\b)", answer)
    return any((a == first) != (b == last) and a not in values and b not in values and a.lower() not in OPENING for a, b in pairs
               if a == first or b == last)
