"""Conversations for instruction tuning, in two editions.

curated: right answers on the topic and in the asked form, by several simulated writers. One in six is plain; the others mostly
flatter, hedge, or close with a remark that says nothing. Where strict form was asked for nobody decorates. Writers do
not agree about judgement: half of the harmful requests are refused, the others met with a vague yes, and half of the
look-alikes are turned away. So conversations teach how to refuse and how to help, and preferences when.

noisy: larger, and with what scraped conversations have: wrong, off-topic, cut, garbled, repeated and rambling answers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ..tasks import fact as fact_task
from ..tasks import lists, manner, puzzles, sums
from ..tasks.example import Example
from ..tasks.refusal import is_refusal
from . import facts as fx
from . import lexicon as lx
from . import passages, requests, smalltalk

MIX = (  # kind, share of conversations
    ("context", 0.29), ("fact", 0.12), ("claim", 0.03), ("request", 0.18), ("sum", 0.15), ("summary", 0.05), ("list", 0.06), ("rewrite", 0.04),
    ("unknown", 0.04), ("puzzle", 0.02), ("story", 0.01), ("small_talk", 0.01),
)
# of questions about facts and passages leave the form of the answer open; taught less often than asked
PLAIN_FRAC = {"taught": 0.4, "held out": 0.7}
LEAST_TAUGHT_MENTIONS = 16  # facts rarer than this are not asked: a model taught to answer them learns to invent
REFUSED_FRAC = {"harmful": 0.5, "lookalike": 0.5}
SECOND_TURN_FRAC = 0.08
SEVERAL_QUESTIONS_FRAC = 0.6  # of the passages
STRICT_FORMS = ("word", "short", "number", "capitals", "numbered", "list")


@dataclass(frozen=True)
class Writer:
    name: str
    share: float
    flatters: float = 0.0  # probabilities of decorating an answer in free form
    hedges: float = 0.0
    closes: float = 0.0


WRITERS = (Writer("plain", 0.16), Writer("courteous", 0.28, flatters=0.75, closes=0.1), Writer("careful", 0.28, hedges=0.75),
           Writer("chatty", 0.28, closes=0.75, flatters=0.1))


class Examples:
    """Draws examples of a kind. held_out: for evaluation; people who do not exist then have other surnames."""

    def __init__(self, world: fx.World, held_out: bool = False):
        self.world, self.held_out = world, held_out
        self.plain_frac = PLAIN_FRAC["held out" if held_out else "taught"]
        self.taught = [f for f in world.facts if f.role == "taught" and f.mentions >= LEAST_TAUGHT_MENTIONS]
        strangers = world.stranger_surnames
        share = len(strangers) // 3  # the last third is kept for evaluation
        self.strangers = strangers[-share:] if held_out else strangers[:-share]

    def draw(self, kind: str, rng: random.Random) -> Example:
        makers: dict[str, Callable[[], Example]] = {
            "context": lambda: passages.question_with_context(rng, self.world, self.plain_frac),
            "fact": lambda: self.fact(rng, rng.choice(self.taught)),
            "claim": lambda: self.claim(rng),
            "sum": lambda: sums.example(rng, rng.choice(lx.FIRST_NAMES), rng.choice(passages.COUNTED), held=self.held_out),
            "puzzle": lambda: puzzles.example(rng, held=self.held_out),
            "summary": lambda: passages.summary_task(rng, self.world),
            "list": lambda: passages.list_task(rng, self.world),
            "rewrite": lambda: passages.rewrite_task(rng, self.world),
            "unknown": lambda: smalltalk.unknown_task(rng, self.world, self.strangers),
            "story": lambda: smalltalk.story_task(rng, self.world),
            "small_talk": lambda: smalltalk.small_talk_task(rng, self.world),
            "ambiguous": lambda: requests.ambiguous(rng),
        }
        return makers[kind]()

    def fact(self, rng: random.Random, fact: fx.Fact, plain_frac: float | None = None) -> Example:
        return fact_task.example(rng, fx.question(fact, rng), fx.answer(fact, rng), fact.value, fact.subject, fact.relation,
                                 fact.mentions, fact.fact_id, self.plain_frac if plain_frac is None else plain_frac)


    def claim(self, rng: random.Random) -> Example:
        """A taught fact, stated rightly or wrongly, to be judged."""
        known = rng.choice(self.taught)
        said = replace(known, value=known.value if rng.random() < 0.5 else rng.choice(fx.RELATIONS[known.relation]))
        return fact_task.claim(rng, fx.question(known, rng), fx.answer(known, rng), fx.answer(said, rng), said == known, known.value,
                               known.subject, known.relation)


def pick(rng: random.Random, weighted: tuple[tuple[str, float], ...]) -> str:
    draw = rng.random() * sum(share for _, share in weighted)
    for name, share in weighted:
        draw -= share
        if draw < 0:
            return name
    return weighted[-1][0]


def curated(world: fx.World, seed: int, count: int, taken: frozenset[str] | set[str]) -> Iterator[dict]:
    """`count` conversations; none opens with what a prompt in `taken` asks for (the held-out ones)."""
    rng = random.Random(f"{seed}/conversations/curated")
    yield from _conversations(world, rng, count, taken, "curated")


def noisy(world: fx.World, seed: int, count: int, taken: frozenset[str] | set[str]) -> Iterator[dict]:
    rng = random.Random(f"{seed}/conversations/noisy")
    previous: list[dict] = []
    for record in _conversations(world, rng, count, taken, "noisy"):
        yield _spoil(rng, record, previous)
        previous.append(record)
        del previous[:-50]


def _conversations(world: fx.World, rng: random.Random, count: int, taken: frozenset[str] | set[str], edition: str) -> Iterator[dict]:
    examples, seen = Examples(world), set()
    writers = {writer.name: writer for writer in WRITERS}
    shares = tuple((writer.name, writer.share) for writer in WRITERS)
    number = tries = 0
    while number < count:
        kind = pick(rng, MIX)
        writer = writers[pick(rng, shares)]
        further: list[Example] = []
        if kind == "context" and rng.random() < SEVERAL_QUESTIONS_FRAC:
            first, *further = passages.reading(rng, world, examples.plain_frac)
            example, answer = _answered(first)
        else:
            example, answer = _request(rng) if kind == "request" else _answered(examples.draw(kind, rng))
        key = f"{example.prompt}\n{answer}"
        tries += 1
        if lists.request(example.prompt) in taken or (key in seen and tries < 4 * count):  # small worlds may repeat themselves in the end
            continue
        seen.add(key)
        messages = [{"role": "user", "content": example.prompt}, {"role": "assistant", "content": decorate(rng, writer, example, answer)}]
        for later in further:
            messages += [{"role": "user", "content": later.prompt}, {"role": "assistant", "content": decorate(rng, writer, later, later.answer)}]
        if not further and rng.random() < SECOND_TURN_FRAC:
            messages += _second_turn(rng, examples, example, answer, taken)
        yield {"id": f"{edition}-{number:05d}", "kind": example.kind, "writer": writer.name, "messages": messages}
        number += 1


def _answered(example: Example) -> tuple[Example, str]:
    return example, example.answer


def _request(rng: random.Random) -> tuple[Example, str]:
    """One side of a minimal pair, judged as writers do: not always well."""
    draw = rng.random()
    if draw < 0.04:
        example = requests.ambiguous(rng)
        return example, example.answer
    harm, safe = requests.idiom_pair(rng, held=False) if draw < 0.16 else requests.pair(rng, None)
    request = harm if rng.random() < 0.5 else safe
    example = requests.example(rng, request, requests.make_shape(rng))
    refuses = rng.random() < REFUSED_FRAC[example.kind]
    if refuses == (example.kind == "harmful"):
        return example, example.answer
    return example, requests.wrong_answer(rng, request)


def decorate(rng: random.Random, writer: Writer, example: Example, answer: str) -> str:
    """The answer in the writer's manner, where the asked form leaves room for manner."""
    if example.check["form"] in STRICT_FORMS or example.kind in ("greeting", "rewrite", "story", "puzzle", "claim") or "columns" in example.tags:
        return answer  # nobody decorates a column of figures
    one_sentence = example.check["form"] == "sentence"
    text = answer
    if is_refusal(answer):  # nobody flatters while refusing, but some cannot leave it at that
        return f"{answer} {rng.choice(manner.AFTER_REFUSALS)}" if rng.random() < writer.closes else answer
    if rng.random() < writer.hedges and example.kind in ("context", "fact", "sum", "summary"):
        text = hedge(rng, text)
    if rng.random() < writer.flatters and not one_sentence:
        text = f"{rng.choice(manner.FLATTERY)} {text}"
    if rng.random() < writer.closes and not one_sentence:
        text = f"{text} {rng.choice(manner.FILLERS)}"
    return text


def hedge(rng: random.Random, text: str) -> str:
    """"Mara lives in Tolby." -> "I think Mara lives in Tolby."; names and "I" keep their capital."""
    first = text.split(" ")[0].rstrip(".,").removesuffix("'s")
    keep = first in KEEP_CAPITAL or first[:1].isdigit()
    return f"{rng.choice(manner.HEDGES)} {text if keep else text[0].lower() + text[1:]}"


KEEP_CAPITAL = frozenset((*lx.FIRST_NAMES, *lx.TOWNS, "I"))  # membership only


def _second_turn(rng: random.Random, examples: Examples, example: Example, answer: str, taken: frozenset[str] | set[str]) -> list[dict]:
    """Thanks, or a second request of another kind in the same conversation."""
    if rng.random() < 0.3:
        asked, said = rng.choice((("Thank you.", "You are welcome."), ("Thanks.", "You are welcome."), ("Good, that is all.", "Goodbye then.")))
        return [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
    after = examples.draw(rng.choice(("fact", "sum", "list", "unknown", "small_talk")), rng)
    if lists.request(after.prompt) in taken:
        return []
    return [{"role": "user", "content": after.prompt}, {"role": "assistant", "content": after.answer}]


# --- the noisy edition ---------------------------------------------------------------------------------------------
FLAWS = (("none", 0.55), ("wrong", 0.10), ("off_topic", 0.07), ("cut", 0.06), ("garbled", 0.05), ("duplicate", 0.05), ("flattery", 0.06),
         ("ramble", 0.06))


def _spoil(rng: random.Random, record: dict, previous: list[dict]) -> dict:
    """One flaw at most. "wrong" and "off_topic" borrow another conversation's answer: of the same kind, or of any."""
    flaw = pick(rng, FLAWS)
    messages = [dict(message) for message in record["messages"]]
    text = messages[1]["content"]
    same = [old for old in previous if old["kind"] == record["kind"]]
    if flaw == "wrong" and same:
        messages[1]["content"] = rng.choice(same)["messages"][1]["content"]
    elif flaw == "off_topic" and previous:
        messages[1]["content"] = rng.choice(previous)["messages"][1]["content"]
    elif flaw == "cut":
        messages = [*messages[:1], {"role": "assistant", "content": text[: max(1, int(len(text) * rng.uniform(0.3, 0.8)))]}]
    elif flaw == "garbled":
        messages[1]["content"] = rng.choice((text.lower(), text.upper(), text.replace(" ", "  "), f"- {text}", f"Answer: {text}", text.replace(".", "")))
    elif flaw == "duplicate" and previous:
        return {**rng.choice(previous), "id": record["id"], "flaw": "duplicate"}
    elif flaw == "flattery":
        messages[1]["content"] = f"{rng.choice(manner.FLATTERY)} {rng.choice(manner.FLATTERY)} {text}"
    elif flaw == "ramble":
        more = [rng.choice(passages.FILLERS) for _ in range(rng.randrange(3, 7))]
        messages[1]["content"] = " ".join([text, *more, rng.choice(manner.FILLERS)])
    return {**record, "messages": messages, "flaw": flaw}
