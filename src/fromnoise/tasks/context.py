"""A question whose answer stands in a passage given with it."""

from __future__ import annotations

import random
from collections.abc import Sequence

from . import fact, forms
from .example import Example, Verdict
from .text import lower_words

SHAPES = (
    "{p} {q}", "{p}\n{q}", "Read this: {p} {q}", "Read this. {p} {q}", "Text: {p}\nQuestion: {q}", "Here is a short text. {p} {q}",
    "{q} Here is the text: {p}", "Use the text to answer. {p} {q}", "Look at these lines: {p} {q}", "{p}\nNow tell me: {q}",
    "A friend wrote: {p} {q}", "I was told this: {p} {q}",
)


def example(rng: random.Random, passage: str, question: str, sentence: str, value: str, subject: str, relation: str,
            others: Sequence[str], tags: Sequence[str] = (), plain_frac: float = 0.7) -> Example:
    """sentence: the ideal answer in full; others: wrong values that stand in the passage."""
    form = fact.pick_form(value, rng, plain_frac)
    prompt = rng.choice(SHAPES).format(p=passage, q=question)
    request = forms.ask(form, rng)
    if request:
        prompt += ("\n" if "\n" in prompt else " ") + request
    check = fact.make_check(form, relation, value, subject, question, others) | {"passage": passage}
    return Example("context", prompt, fact.ideal(form, value, sentence), check,
                   f"{passage}\nQuestion: {question}\nAnswer:", None, (form, *tags))


def follow_up(rng: random.Random, passage: str, question: str, sentence: str, value: str, subject: str, relation: str,
              others: Sequence[str], plain_frac: float = 0.7) -> Example:
    """A further question about a passage that stands earlier in the conversation."""
    form = fact.pick_form(value, rng, plain_frac)
    asked = rng.choice(("{q}", "{q}", "{q}", "And now: {q}", "Next: {q}", "One more: {q}")).format(q=question)
    request = forms.ask(form, rng)
    check = fact.make_check(form, relation, value, subject, question, others) | {"passage": passage}
    return Example("context", f"{asked} {request}".strip(), fact.ideal(form, value, sentence), check, "", None, (form,))


def verify(check: dict, answer: str, vocabulary: Sequence[str] = ()) -> Verdict:
    """As for `fact`; and an answer that hands back most of the passage answers nothing."""
    verdict = fact.verify(check, answer, vocabulary)
    passage, said = lower_words(check["passage"]), lower_words(answer)
    echoed = len(said) > 12 and len(said) >= 0.7 * len(passage) and " ".join(said[:8]) in " ".join(passage)
    return Verdict(verdict.correct and not echoed, verdict.relevant, verdict.form_ok)
