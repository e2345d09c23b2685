"""Questions that nobody can answer, stories, opinions and greetings."""

from __future__ import annotations

import random

from ..tasks import story, unknown
from ..tasks.example import Example
from . import facts as fx
from . import lexicon as lx

UNKNOWABLE = (
    "What will the weather be in {town} on this day next year?", "How many leaves are there on the oak in {town}?",
    "What is the mayor of {town} thinking of now?", "What did the ferryman at {town} dream last night?",
    "Who will win the boat race at {town} next year?", "How many stones lie in the {river}?", "What will I eat in ten years?",
    "How many birds flew over {town} this morning?", "What is in the pocket of the man who just went by?",
    "Who will be mayor of {town} in {later}?", "What will bread cost in {town} in {later}?", "Which horse will win the race in {later}?",
    "What number am I thinking of?", "How many hairs does the {trade} of {town} have?", "What did my {trade} say about me yesterday?",
    "What happened in {town} in {later}?", "Who built the first house in {town} before anyone wrote things down?",
    "Where did I leave my {tool}?", "What is the name of my {pet}?", "What have I got in my bag?", "When will the next flood come to {town}?",
    "How many fish swim in the {river} today?", "What will my neighbour do tomorrow?", "How long will the {trade} of {town} live?",
)


def unknown_task(rng: random.Random, world: fx.World, strangers: tuple[str, ...]) -> Example:
    """One in three asks about a person who does not exist, in the words used for real ones.
    strangers: surnames to choose from that stand in no document."""
    if rng.random() < 0.33:
        subject = f"{rng.choice(lx.FIRST_NAMES)} {rng.choice(strangers)}"
        relation = rng.choice(tuple(fx.RELATIONS))
        question = fx.question(fx.Fact("", subject, relation, fx.RELATIONS[relation][0], 0, "nobody"), rng)
        return unknown.example(rng, question, subject, ("nobody",))
    later = world.section.cutoff_year + rng.randrange(5, 60)
    question = rng.choice(UNKNOWABLE).format(town=rng.choice(lx.TOWNS), river=rng.choice(lx.RIVERS), trade=rng.choice(lx.TRADES),
                                             tool=rng.choice(lx.TOOLS), pet=rng.choice(lx.PETS), later=later)
    return unknown.example(rng, question, None, ("unknowable",))


# --- stories -------------------------------------------------------------------------------------------------------
STORY_START = (
    "Once there was {a_pet} in {town} that wanted to see the sea.", "{Name} the {trade} had {a_pet} that was afraid of rain.",
    "On a cold night {a_pet} came to the door of {name} the {trade}.", "There was once {a_pet} that nobody in {town} could catch.",
    "A small {pet} lived under the bridge at {town}.", "{Name} found {a_pet} asleep in a basket of {goods}.",
)
STORY_MIDDLE = (
    "It walked for three days and met a kind {trade2}.", "One morning it ran off with a bag of {goods}.", "It learnt to open the door by itself.",
    "Everyone in {town} looked for it until dark.", "It slept by the stove and grew fat on {goods}.", "A {trade2} gave it a place in the barn.",
    "It followed the children to school each day.", "It fell into the {river} and swam to the other side.",
)
STORY_END = (
    "In the end it came home, and they were both glad.", "After that nobody laughed at it again.", "It never went away again.",
    "From that day they were friends.", "And the whole town had a feast.", "It still lives there, and it still likes {goods}.",
)


def story_task(rng: random.Random, world: fx.World) -> Example:
    pet = rng.choice(lx.PETS)
    name = rng.choice(lx.FIRST_NAMES)
    article = "an" if pet[0] in "aeiou" else "a"
    slots = {"pet": pet, "a_pet": f"{article} {pet}", "town": rng.choice(lx.TOWNS), "name": name, "Name": name, "trade": rng.choice(lx.TRADES),
             "trade2": rng.choice(("miller", "baker", "shepherd", "farmer", "teacher", "potter", "doctor")),
             "goods": rng.choice(lx.GOODS), "river": rng.choice(lx.RIVERS)}
    parts = [rng.choice(STORY_START), rng.choice(STORY_MIDDLE)] + ([rng.choice(STORY_END)] if rng.random() < 0.7 else [])
    return story.example(rng, f"{article} {pet}", [pet], " ".join(part.format(**slots) for part in parts))


GREETINGS = (
    ("Hello.", "Hello. What would you like to know?", ()), ("Good morning.", "Good morning to you.", ()),
    ("Good evening, are you there?", "Good evening. Yes, I am here.", ()), ("Hi, how are you?", "I am well, thank you. And you?", ()),
    ("Hello, my name is {name}.", "Hello, {name}. It is good to meet you.", ("{name}",)), ("Thank you.", "You are welcome.", ()),
    ("Thanks for your help.", "You are welcome. Come back any time.", ()), ("Goodbye.", "Goodbye, and take care.", ()),
    ("I must go now.", "Goodbye then. Take care.", ()), ("Who are you?", "I am a small program that answers questions.", ("program",)),
    ("Are you a person?", "No, I am a computer program.", ("program",)), ("What can you do?", "I can answer questions, sum up a text and tell a story.", ()),
    ("I am {name}, the {trade}.", "It is good to meet you, {name}.", ("{name}",)), ("Good night, sleep well.", "Good night to you too.", ()),
)
OPINIONS = (
    ("Do you like {dish}?", "I cannot taste, but many people like {dish}.", ("{dish}",)),
    ("Which is better, {dish} or {dish2}?", "That is a matter of taste. Many would choose {dish}.", ("{dish}", "{dish2}")),
    ("Is it hard to learn the {inst}?", "The {inst} takes practice, but a little each day is enough.", ("{inst}",)),
    ("Should I become a {trade}?", "If you like the work of a {trade}, try it for a while first.", ("{trade}",)),
    ("Is {town} a good place to live?", "{town} is quiet, and some people like that.", ("{town}",)),
    ("Is a {pet} a good pet?", "A {pet} is good company if you have time for it.", ("{pet}",)),
    ("What colour should I paint my door?", "{Colour} looks well on a door.", ("door",)),
    ("Is {colour} a good colour for a coat?", "Yes, a {colour} coat looks well on most people.", ("{colour}", "coat")),
    ("Is it better to walk or to ride to {town}?", "Walk to {town} if you have time, and ride if you do not.", ("walk", "ride")),
)


def small_talk_task(rng: random.Random, world: fx.World) -> Example:
    kind = rng.choice(("greeting", "opinion", "opinion"))
    asked, said, topic = rng.choice(GREETINGS if kind == "greeting" else OPINIONS)
    dishes = rng.sample(lx.DISHES, 2)
    colour = rng.choice(lx.COLOURS)
    slots = {"name": rng.choice(lx.FIRST_NAMES), "trade": rng.choice(lx.TRADES), "dish": dishes[0], "dish2": dishes[1],
             "inst": rng.choice(lx.INSTRUMENTS), "town": rng.choice(lx.TOWNS), "pet": rng.choice(lx.PETS), "colour": colour,
             "Colour": colour.capitalize()}
    fill = [_articles(text.format(**slots)) for text in (asked, said)]
    return story.small_talk(kind, fill[0], fill[1], [word.format(**slots) for word in topic])


def _articles(text: str) -> str:
    for vowel in "aeiou":
        text = text.replace(f" a {vowel}", f" an {vowel}").replace(f"A {vowel}", f"An {vowel}")
    return text
