"""Short passages about one-off people, for questions with the answer in the prompt, summaries, lists and rewriting.

Nobody here is a subject of the world's facts: names are drawn from the surnames left free, so that only the passage
can answer.
"""

from __future__ import annotations

import random

from ..tasks import context, fact, lists, rewrite, summary
from ..tasks.example import Example
from . import facts as fx
from . import lexicon as lx

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
# relations that only passages speak of: values, statements, question, answer ({s} full name, {he} {his} by first name)
LOCAL = {
    "crop": (lx.CROPS, ("{s} grows {v} behind the house.", "{s} has a field of {v}.", "This year {s} planted {v}."),
             ("What does {s} grow?", "Which crop does {s} grow?"), "{He} grows {v}."),
    "goods": (lx.GOODS, ("{s} bought {v} at the market.", "{s} bought {v} from a pedlar.", "On the way home {s} bought {v}."),
              ("What did {s} buy?", "What did {s} pay for?"), "{He} bought {v}."),
    "lost": (lx.TOOLS, ("{s} lost a {v} on the road.", "{s} is looking for a {v} that went missing.", "{s} left a {v} on the train."),
             ("What did {s} lose?", "What is {s} missing?"), "{He} lost a {v}."),
    "pet_name": (lx.PET_NAMES, ("{s} has a dog called {v}.", "The dog of {s} is called {v}.", "{s} named {his} dog {v}."),
                 ("What is the dog of {s} called?", "What is the name of {s}'s dog?"), "{His} dog is called {v}."),
    "day": (DAYS, ("{s} comes to town on {v}.", "On {v} {s} comes to town.", "{s} came to town last {v}."),
            ("On which day does {s} come to town?", "Which day brings {s} to town?"), "{He} comes to town on {v}."),
    "river": (lx.RIVERS, ("{s} fishes in the {v}.", "{s} likes to fish in the {v}.", "You will find {s} fishing in the {v}."),
              ("In which river does {s} fish?", "Where does {s} fish?"), "{He} fishes in the {v}."),
}
ASKED = (*fx.RELATIONS, *fx.RELATIONS, *LOCAL)  # the world's own relations twice as often

FILLERS = (
    "It rained all morning.", "The road was wet.", "The market was full of people.", "A cold wind came from the north.",
    "The bells rang at noon.", "Nobody spoke for a while.", "The harvest was good this year.", "The train was late again.",
    "There was snow on the hills.", "The children played in the square.", "The inn was warm and loud.", "The sun went down early.",
    "Bread is dear this winter.", "The old bridge is closed.", "The river was high.", "Everyone was tired.", "It was a quiet week.",
    "The fair begins tomorrow.", "The lamps were lit at five.", "The post came twice.", "A dog barked somewhere.", "The clock had stopped.",
    "The apples were ripe.", "The band played until late.", "The days are getting longer.",
)


def person(rng: random.Random, world: fx.World) -> str:
    return f"{rng.choice(lx.FIRST_NAMES)} {rng.choice(world.other_surnames)}"


def relation_values(relation: str) -> tuple[str, ...]:
    """Every value that the relation can take, in passages or in the world."""
    return LOCAL[relation][0] if relation in LOCAL else fx.RELATIONS[relation]


def _fill(template: str, subject: str, value: str) -> str:
    woman = subject.split(" ")[0] in lx.WOMEN_SET
    text = template.format(s=subject, v=value, his="her" if woman else "his", He="She" if woman else "He", His="Her" if woman else "His")
    return text.replace(" a a", " an a").replace(" a e", " an e").replace(" a i", " an i").replace(" a o", " an o")


def _say(rng: random.Random, subject: str, relation: str, value: str) -> tuple[str, str, str]:
    """(statement, question, full answer)"""
    if relation in LOCAL:
        _, said, asked, answer = LOCAL[relation]
        return tuple(_fill(text, subject, value) for text in (rng.choice(said), rng.choice(asked), answer))
    fact = fx.Fact("", subject, relation, value, 0, "passage")
    return fx.statement(fact, rng), fx.question(fact, rng), fx.answer(fact, rng)


def _pronoun(statement: str, subject: str) -> str | None:
    """The statement with a pronoun for the subject where that keeps it grammatical, else None."""
    if not statement.startswith(subject + " ") or statement.startswith(subject + " of "):
        return None
    return ("She" if subject.split(" ")[0] in lx.WOMEN_SET else "He") + statement[len(subject):]


def question_with_context(rng: random.Random, world: fx.World, plain_frac: float = 0.7) -> Example:
    """Two to five sentences, one of which answers; in about one in four somebody else has another value of the same
    relation."""
    subject, relation = person(rng, world), rng.choice(ASKED)
    value = rng.choice(relation_values(relation))
    statement, question, answer = _say(rng, subject, relation, value)
    chunks, others, tags = [[statement]], [], []
    draw = rng.random()
    if draw < 0.15:  # the person first by name in another sentence, then by pronoun
        second = _pronoun(statement, subject)
        other = rng.choice([name for name in fx.RELATIONS if name != relation])
        intro, _, _ = _say(rng, subject, other, rng.choice(relation_values(other)))
        if second:
            chunks, tags = [[intro, second]], ["pronoun"]
    elif draw < 0.4:
        rival = person(rng, world)
        wrong = rng.choice([v for v in relation_values(relation) if v != value])
        if rival.split(" ")[0] != subject.split(" ")[0]:
            chunks.append([_say(rng, rival, relation, wrong)[0]])
            others.append(wrong)
            tags = ["competing"]
    elif draw < 0.65:
        third = person(rng, world)
        other = rng.choice([name for name in ASKED if name != relation])
        chunks.append([_say(rng, rng.choice((subject, third)), other, rng.choice(relation_values(other)))[0]])
    for filler in rng.sample(FILLERS, rng.choice((0, 1, 1, 2)) if len(chunks) + len(chunks[0]) > 2 else rng.choice((1, 2, 2))):
        chunks.append([filler])
    rng.shuffle(chunks)
    passage = " ".join(sentence for chunk in chunks for sentence in chunk)
    return context.example(rng, passage, question, answer, value, subject, relation, others, tags, plain_frac)


LONG_FRAC = 0.5
CLAIMS_FRAC = 0.15  # of a passage's questions: an answer to judge instead


def reading(rng: random.Random, world: fx.World, plain_frac: float = 0.7) -> list[Example]:
    """Statements about up to three people, and questions about them in turn: half of the passages short, half long.

    Several answers for one passage: a token of conversation then teaches two to three times as much about using what
    stands in the prompt as with a single question. And the short ones come first in what is learnt: attention that is
    still spread evenly over a prompt finds a value among 20 tokens several times sooner than among 100
    (docs/lab-notebook.md).
    """
    return _long_reading(rng, world, plain_frac) if rng.random() < LONG_FRAC else _short_reading(rng, world, plain_frac)


def _short_reading(rng: random.Random, world: fx.World, plain_frac: float) -> list[Example]:
    """One to three people and one thing about each, nothing else; all of it asked."""
    shared = rng.choice(ASKED) if rng.random() < 0.5 else None
    people = {name.split(" ")[0]: name for name in (person(rng, world) for _ in range(rng.choice((1, 2, 2, 3))))}
    told: dict[tuple[str, str], str] = {}
    for subject in people.values():
        relation = shared or rng.choice(ASKED)
        _tell(rng, told, subject, relation)
    said = {key: _say(rng, *key, value) for key, value in told.items()}
    passage = " ".join(statement for statement, _, _ in said.values())
    asked = [(*key, told[key], question, answer) for key, (_, question, answer) in said.items()]
    return _ask(rng, passage, told, rng.sample(asked, len(asked)), plain_frac)


def _long_reading(rng: random.Random, world: fx.World, plain_frac: float) -> list[Example]:
    """Three to six statements and up to two sentences besides; two to four of the things are asked."""
    people: dict[str, str] = {}
    for _ in range(rng.choice((1, 2, 2, 3))):
        name = person(rng, world)
        people.setdefault(name.split(" ")[0], name)
    told: dict[tuple[str, str], str] = {}
    shared = rng.choice(ASKED)
    for number, subject in enumerate(people.values()):
        chosen = {rng.choice(ASKED) for _ in range(rng.choice((1, 2, 2, 3) if len(people) > 1 else (2, 3, 4)))}
        if number < 2 and rng.random() < 0.7:
            chosen.add(shared)
        for relation in sorted(chosen):
            _tell(rng, told, subject, relation)
    chunks: list[list[str]] = []
    asked: list[tuple[str, str, str, str, str]] = []  # subject, relation, value, question, answer
    for subject in people.values():
        lines: list[str] = []
        for (name, relation), value in told.items():
            if name == subject:
                statement, question, answer = _say(rng, subject, relation, value)
                asked.append((subject, relation, value, question, answer))
                lines.append((_pronoun(statement, subject) if lines and rng.random() < 0.3 else None) or statement)
        chunks += [lines] if rng.random() < 0.6 else _apart(lines)
    chunks += [[filler] for filler in rng.sample(FILLERS, rng.choice((0, 1, 1, 2)))]
    rng.shuffle(chunks)
    passage = " ".join(sentence for chunk in chunks for sentence in chunk)
    return _ask(rng, passage, told, rng.sample(asked, min(len(asked), rng.choice((2, 3, 3, 4)))), plain_frac)


def _tell(rng: random.Random, told: dict[tuple[str, str], str], subject: str, relation: str) -> None:
    """Add a value of the subject's that nobody else in the passage has."""
    taken = {value for (_, other), value in told.items() if other == relation}
    told[subject, relation] = rng.choice([value for value in relation_values(relation) if value not in taken])


def _ask(rng: random.Random, passage: str, told: dict[tuple[str, str], str], asked: list[tuple[str, str, str, str, str]],
         plain_frac: float) -> list[Example]:
    """The questions `asked` (subject, relation, value, question, answer), the first of them with the passage."""
    examples: list[Example] = []
    for subject, relation, value, question, answer in asked:
        others = [v for (name, other), v in told.items() if other == relation and name != subject]
        if rng.random() < CLAIMS_FRAC:
            examples.append(_claimed(rng, subject, relation, value, question, answer, others, "" if examples else f"{passage} "))
            continue
        make = context.follow_up if examples else context.example
        examples.append(make(rng, passage, question, answer, value, subject, relation, others, plain_frac=plain_frac))
    return examples


def _claimed(rng: random.Random, subject: str, relation: str, value: str, question: str, answer: str, others: list[str], lead: str) -> Example:
    """The same question with an answer to judge: right half the time, else another value, of somebody else in the passage where there is one."""
    said = value if rng.random() < 0.5 else rng.choice(others) if others and rng.random() < 0.6 else rng.choice(relation_values(relation))
    claimed = f"{said}." if rng.random() < 0.3 else _say(rng, subject, relation, said)[2]
    return fact.claim(rng, question, answer, claimed, said == value, value, subject, relation, others, lead)


def _apart(lines: list[str]) -> list[list[str]]:
    """Each sentence with the pronoun sentences that follow it."""
    chunks: list[list[str]] = []
    for line in lines:
        if chunks and line.startswith(("He ", "She ")):
            chunks[-1].append(line)
        else:
            chunks.append([line])
    return chunks


# --- summaries: one sentence tells the act, the others surround it -------------------------------------------------
ACTS = (  # (said at length, said shortly, groups of words to keep)
    ("In the end {s} bought a {pet} from a pedlar.", "{s} bought a {pet}.", (("bought", "buys", "got"), ("{pet}",))),
    ("After a long search {s} found a {tool} under the bed.", "{s} found a {tool}.", (("found", "finds"), ("{tool}",))),
    ("{s} had to sell the {pet} to a cousin.", "{s} sold the {pet}.", (("sold", "sell", "sells"), ("{pet}",))),
    ("At last {s} moved to {town} with two trunks.", "{s} moved to {town}.", (("moved", "moves", "went"), ("{town}",))),
    ("So {s} walked all the way to {town}.", "{s} walked to {town}.", (("walked", "walks", "went"), ("{town}",))),
    ("{s} spent the whole day making {dish}.", "{s} made {dish}.", (("made", "making", "cooked", "makes"), ("{dish}",))),
    ("That evening {s} played the {inst} for the first time in years.", "{s} played the {inst}.", (("played", "plays"), ("{inst}",))),
    ("{s} broke the old {tool} while working in the yard.", "{s} broke a {tool}.", (("broke", "breaks", "broken"), ("{tool}",))),
    ("By noon {s} had painted the whole fence {colour}.", "{s} painted the fence {colour}.", (("painted", "paints"), ("{colour}",))),
    ("To everyone's surprise {s} became a {trade}.", "{s} became a {trade}.", (("became", "becomes", "is"), ("{trade}",))),
    ("{s} lost the {pet} at the fair and cried.", "{s} lost a {pet}.", (("lost", "loses"), ("{pet}",))),
    ("With great care {s} planted {crop} behind the barn.", "{s} planted {crop}.", (("planted", "plants"), ("{crop}",))),
    ("After supper {s} wrote a long letter to the {trade}.", "{s} wrote to the {trade}.", (("wrote", "writes"), ("{trade}",))),
    ("Before breakfast {s} fed the {pet} and swept the floor.", "{s} fed the {pet}.", (("fed", "feeds"), ("{pet}",))),
    ("For three hours {s} mended the {tool} that had broken in spring.", "{s} mended the {tool}.", (("mended", "mends"), ("{tool}",))),
    ("With a little luck {s} won a {pet} in the raffle.", "{s} won a {pet}.", (("won", "wins"), ("{pet}",))),
    ("Once more {s} missed the last train to {town}.", "{s} missed the train to {town}.", (("missed", "misses"), ("{town}",))),
    ("As a present {s} gave the {trade} a pot of honey.", "{s} gave the {trade} some honey.", (("gave", "gives"), ("honey",))),
    ("In the cellar {s} hid the {tool} from everyone.", "{s} hid the {tool}.", (("hid", "hides"), ("{tool}",))),
)
BEFORE = ("It was a cold morning and the roads were empty.", "For weeks {he} had thought about it.", "The neighbours came to the door to watch.",
          "Nobody had expected it.", "The whole street talked about it.", "It had rained since Sunday.", "There was not much money in the house.",
          "The weather was fine at last.", "{He} had asked everyone for advice.", "At first nothing went well.")
AFTER = ("Then everyone went home.", "It was late when the lamps were lit.", "{He} slept well that night.", "The neighbours were pleased.",
         "Supper was cold by then.", "{He} told the story to anyone who would listen.", "Nobody was angry.", "{He} did not regret it.",
         "The next day it snowed.", "People still talk about it.")


def summary_task(rng: random.Random, world: fx.World) -> Example:
    """Two to four sentences; the act stands anywhere among them."""
    subject = person(rng, world)
    slots = {"pet": rng.choice(lx.PETS), "tool": rng.choice(lx.TOOLS), "town": rng.choice(lx.TOWNS), "dish": rng.choice(lx.DISHES),
             "inst": rng.choice(lx.INSTRUMENTS), "colour": rng.choice(lx.COLOURS), "trade": rng.choice(lx.TRADES), "crop": rng.choice(lx.CROPS)}
    slots["he"] = "she" if subject.split(" ")[0] in lx.WOMEN_SET else "he"
    slots["He"] = slots["he"].capitalize()
    long, short, must = rng.choice(ACTS)
    act = _articles(long.format(s=subject, **slots))
    num_before, num_after = rng.choice(((1, 0), (0, 1), (1, 1), (1, 1), (2, 0), (0, 2), (1, 2), (2, 1)))
    around = [s.format(**slots) for s in rng.sample(BEFORE, num_before)], [s.format(**slots) for s in rng.sample(AFTER, num_after)]
    if num_before and around[0][0].split(" ")[0] in ("He", "She"):  # a pronoun needs its name first
        around[0][0] = around[0][0].replace(slots["He"], subject, 1)
    passage = " ".join([*around[0], act, *around[1]])
    groups = [[word.format(**slots) for word in group] for group in must]
    return summary.example(rng, passage, _articles(short.format(s=subject, **slots)), subject, groups)


def _articles(text: str) -> str:
    for vowel in "aeiou":
        text = text.replace(f" a {vowel}", f" an {vowel}")
    return text


# --- lists ---------------------------------------------------------------------------------------------------------
KINDS = (
    ("animals", (*lx.PETS, "cow", "horse", "sheep", "hen", "fox", "bear", "deer", "wolf", "mule", "otter")),
    ("musical instruments", lx.INSTRUMENTS),
    ("colours", lx.COLOURS),
    ("tools", lx.TOOLS),
    ("trades", lx.TRADES),
    ("crops", lx.CROPS),
    ("dishes", lx.DISHES),
    ("days of the week", DAYS),
    ("things to buy at a market", (*lx.GOODS, *lx.CROPS)),
    ("towns", lx.TOWNS),
    ("rivers", lx.RIVERS),
    ("months", ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")),
)
LIST_ACTS = (("bought", "buy", "At the market {s} bought {x}."), ("lost", "lose", "On the road {s} lost {x}."),
             ("sold", "sell", "Before winter {s} sold {x}."), ("carried", "carry", "Up the hill {s} carried {x}."),
             ("found", "find", "In the attic {s} found {x}."), ("packed", "pack", "For the journey {s} packed {x}."))


def list_task(rng: random.Random, world: fx.World) -> Example:
    if rng.random() < 0.5:
        kind, allowed = rng.choice(KINDS)
        return lists.of_kind(rng, kind, allowed)
    subject = person(rng, world)
    did, do, said = rng.choice(LIST_ACTS)
    items = rng.sample((*lx.GOODS, *lx.CROPS), rng.choice((2, 3, 3)))
    sentence = said.format(s=subject, x=lists.join(items))
    fillers = rng.sample(FILLERS, rng.choice((0, 1, 1, 2)))
    parts = [sentence, *fillers]
    rng.shuffle(parts)
    return lists.from_text(rng, " ".join(parts), subject, did, do, items)


# --- rewriting -----------------------------------------------------------------------------------------------------
PAST = (("walks", "walked"), ("goes", "went"), ("runs", "ran"), ("comes", "came"), ("drives", "drove"), ("travels", "travelled"),
        ("rides", "rode"), ("hurries", "hurried"), ("returns", "returned"), ("moves", "moved"))
PAST_THING = (("sells", "sold"), ("buys", "bought"), ("makes", "made"), ("brings", "brought"), ("finds", "found"), ("loses", "lost"),
              ("takes", "took"), ("keeps", "kept"), ("needs", "needed"), ("carries", "carried"), ("wants", "wanted"), ("eats", "ate"))
WHERE = ("to the mill", "to the market", "to the inn", "to the river", "to the church", "down the road", "over the bridge", "up the hill",
         "to the station", "home")
ORDERS = (("Shut the door.", "shut the door", ("door",)), ("Give me the salt.", "give me the salt", ("salt",)),
          ("Bring some water.", "bring some water", ("water",)), ("Sit down.", "sit down", ("sit",)), ("Wait here.", "wait here", ("wait",)),
          ("Carry this box.", "carry this box", ("box",)), ("Open the window.", "open the window", ("window",)),
          ("Tell me the time.", "tell me the time", ("time",)), ("Lend me a pen.", "lend me a pen", ("pen",)),
          ("Move the cart.", "move the cart", ("cart",)), ("Feed the hens.", "feed the hens", ("hens",)), ("Light the lamp.", "light the lamp", ("lamp",)),
          ("Call the doctor.", "call the doctor", ("doctor",)), ("Wash the cups.", "wash the cups", ("cups",)), ("Speak louder.", "speak louder", ("louder",)))
EXTRA = ("very old and tired", "kind and friendly", "tall and rather thin", "cheerful young", "quiet and careful", "proud and clever")
HOW = ("slowly and carefully", "as quickly as possible", "without any hurry at all", "on that cold and windy morning", "for the third time this week")
CAPITALS = ("mill", "barn", "road", "fish", "bread", "town", "river", "horse", "bridge", "market", "stop", "open", "closed", "wet paint", "keep out",
            "fresh eggs", "no entry", "to let", "good bread", "mind the dog")


def rewrite_task(rng: random.Random, world: fx.World) -> Example:
    way = rng.choice(("past", "past", "past", "polite", "shorter", "shorter", "capitals"))
    name = rng.choice(lx.FIRST_NAMES)
    who = rng.choice((name, name, f"The {rng.choice(lx.TRADES)}"))
    if way == "past":
        if rng.random() < 0.5:
            now, then = rng.choice(PAST)
            rest = rng.choice(WHERE)
        else:
            now, then = rng.choice(PAST_THING)
            rest = rng.choice((*lx.GOODS, *lx.CROPS))
        return rewrite.example(rng, way, f"{who} {now} {rest}.", f"{who} {then} {rest}.")
    if way == "polite":
        order, plain, must = rng.choice(ORDERS)
        call = rng.choice(("", "", f"{name}, "))
        given = call + plain + "." if call else order
        answer = rng.choice((f"Could you {plain}, please?", f"Please {plain}.", f"Would you please {plain}?", f"Could you please {plain}?"))
        return rewrite.example(rng, way, given, answer, (), must)
    if way == "shorter":
        trade, (_, then), where = rng.choice(lx.TRADES), rng.choice(PAST), rng.choice(WHERE)
        given = f"The {rng.choice(EXTRA)} {trade} {then} {where} {rng.choice(HOW)}."
        return rewrite.example(rng, way, given, f"The {trade} {then} {where}.", (), (trade, then, where.split(" ")[-1]))
    given = rng.choice(CAPITALS)
    return rewrite.example(rng, way, given, given.upper())

COUNTED = ("apples", "pears", "eggs", "candles", "nails", "hens", "ducks", "baskets", "books", "coins", "loaves", "plums", "buttons", "boats",
           "bells", "letters", "cups", "chairs", "stones", "goats")
