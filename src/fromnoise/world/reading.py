"""Passages with questions about them and the answers, as plain text: what stands in the text can be copied from it.

The people are one-off people (never subjects of the world's facts), with values drawn anew for every passage.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from . import facts as fx
from . import lexicon as lx
from .frames import NARRATIVE
from .grammar import finish
from .scene import Scene
from .stories import Stories

# further relations: values, statements, questions, answers ({s} full name, {v} value, {he} {his} by first name)
LOCAL: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "crop": (lx.CROPS, ("{s} grows {v} behind the house.", "{s} has a field of {v}.", "This year {s} planted {v}.",
    "The land of {s} bears nothing but {v}."), ("What does {s} grow?", "Which crop does {s} grow?", "What did {s} plant?"), ("{He} grows {v}.",)),
    "goods": (lx.GOODS, ("{s} bought {v} at the market.", "{s} bought {v} from a pedlar.", "On the way home {s} bought {v}.",
    "{s} came back with {v} and nothing else."), ("What did {s} buy?", "What did {s} bring from the market?", "What did {s} pay for?"), ("{He} bought {v}.",
    )),
    "lost": (tuple(tool for tool in lx.TOOLS if not tool.startswith("pair")), ("{s} lost a~{v} on the road.", "{s} is looking for a~{v} that went missing.",
    "{s} left a~{v} on the train."), ("What did {s} lose?", "What is {s} missing?"), ("{He} lost a~{v}.",)),
    "pet_name": (lx.PET_NAMES, ("{s} has a dog called {v}.", "The dog of {s} is called {v}.", "{s} named {his} dog {v}."),
    ("What is the dog of {s} called?", "What is the name of the dog of {s}?"), ("{His} dog is called {v}.",)),
    "day": (("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"), ("{s} comes to town on {v}.", "On {v} {s} comes to town.",
    "{s} came to town last {v}."), ("On which day does {s} come to town?", "When does {s} come to town?"), ("{He} comes to town on {v}.",)),
    "river": (lx.RIVERS, ("{s} fishes in the {v}.", "{s} likes to fish in the {v}.", "You will find {s} fishing in the {v}."),
    ("In which river does {s} fish?", "Where does {s} fish?"), ("{He} fishes in the {v}.",)),
    "age": (tuple(str(age) for age in range(18, 90)), ("{s} is {v} years old.", "{s} turned {v} this week.", "At {v} {s} still walks to church."),
    ("How old is {s}?", "What is the age of {s}?"), ("{He} is {v} years old.",)),
    "friend": (lx.FIRST_NAMES, ("{s} has a friend called {v}.", "The best friend of {s} is {v}.", "{s} goes nowhere without {v}."),
    ("Who is the friend of {s}?", "What is the name of the friend of {s}?"), ("{His} friend is {v}.",)),
}
INTROS = ("", "", "", "", "Read this and answer the questions.", "Read the text.", "Here is a short text with questions.", "Exercise {n}.", "Text {n}.",
    "Reading for the {o} week.")
SHORT_PASSAGES_FRAC = 0.5
SHORT_FRAC = 0.7  # answers of a word or two: the part that must be copied, and nothing else


class Reading:
    def __init__(self, scene: Scene, stories: Stories, rng: random.Random, dress: Callable[[str, str], str]):
        self.scene, self.stories, self.rng, self.dress = scene, stories, rng, dress
        self.frames = scene.compile_all([frame for frame in NARRATIVE if "{p}" not in frame and "{q}" not in frame])
        self.fillers = scene.compile_all(("{wx}.", "{bg}.", "{group} {do3.past}.", "{third} {any.past}.", "The {vehicle} was late.",
            "It was {adv.degree} {adj.weather} {when}.", "Nobody knew {wh2}."))

    def _say(self, subject: str, relation: str, value: str) -> tuple[str, str, str]:
        """(statement, question, answer)"""
        scene = self.scene
        if relation not in LOCAL:
            fact = fx.Fact("", subject, relation, value, 0, "passage")
            return fx.statement(fact, self.rng), fx.question(fact, self.rng), fx.answer(fact, self.rng)
        woman = subject.split(" ")[0] in lx.WOMEN_SET
        return tuple(finish(scene.pick(forms).format(s=subject, v=value, he="she" if woman else "he", his="her" if woman else "his",
                     He="She" if woman else "He", His="Her" if woman else "His"))
                     for forms in LOCAL[relation][1:])

    def passage(self) -> list[str]:
        """People, things about them, and questions about some: half of the passages one or two bare statements, half up
        to nine with sentences between. What can be copied is found sooner in the short ones."""
        scene = self.scene
        short = scene.chance(SHORT_PASSAGES_FRAC)
        scene.new_people()
        scene.third_known = True
        told: list[tuple[str, str, str]] = []
        relations = (*fx.RELATIONS, *fx.RELATIONS, *LOCAL)
        people = [scene.full_name() for _ in range(scene.pick((1, 2, 2) if short else (1, 1, 2, 2, 3)))]
        shared = scene.pick(relations) if scene.chance(0.5) else None  # the same relation of several people
        for person in people:
            chosen = dict.fromkeys(scene.sample(relations, 1 if short else scene.number(1, 3)))
            if shared and not short:
                chosen[shared] = None
            for relation in chosen:
                values = LOCAL[relation][0] if relation in LOCAL else fx.RELATIONS[relation]
                value = scene.pick(values)
                statement, question, answer = self._say(person, relation, value)
                if scene.chance(SHORT_FRAC):
                    answer = value  # spelled as in the passage
                told.append((statement if short else self.dress(statement, person), question, answer))
        order = told if scene.chance(0.4) else scene.sample(told, len(told))
        sentences = []
        for statement, _, _ in order:
            sentences.append(statement)
            if scene.chance(0.0 if short else 0.35):
                sentences.append(scene.elaborate(scene.choose(self.fillers), "news"))
        asked = [(question, answer) for _, question, answer in scene.sample(told, scene.number(min(2, len(told)), len(told)))]
        return self._layout(scene.paragraph(sentences), asked)

    def story(self) -> list[str]:
        """A story from a plot, with the questions it answers."""
        stories, scene = self.stories, self.scene
        plot = stories.start()
        paragraphs = stories.tell(plot, fillers=0.4 * scene.random(), talk=0.0)
        asked = [(finish(scene.say(q)), finish(scene.say(a))) for q, a in scene.sample(plot[3], scene.number(1, len(plot[3])))]
        return self._layout(" ".join(paragraphs), asked)

    def summary(self) -> list[str]:
        """A story and its summary."""
        stories, scene = self.stories, self.scene
        plot = stories.start()
        paragraphs = stories.tell(plot, fillers=0.4 * scene.random(), talk=0.15)
        lead = scene.pick(("In short: ", "Summary: ", "To sum up: ", "In one sentence: ", "The story in short: "))
        return [*paragraphs, lead + finish(scene.choose(plot[2]))]

    def _layout(self, text: str, asked: list[tuple[str, str]]) -> list[str]:
        scene = self.scene
        lines = []
        intro = scene.pick(INTROS).format(n=scene.number(1, 90), o=scene.pick(scene.pools["ordinal"]))
        if intro:
            lines.append(intro)
        lines.append(text)
        style = scene.number(0, 4)
        for question, answer in asked:
            if style <= 1:
                lines += [f"Question: {question}", f"Answer: {answer}"]
            elif style == 2:
                lines += [f"Q: {question}", f"A: {answer}"]
            elif style == 3:
                lines.append(f"{question} {answer}")
            else:
                lines += [question, answer]
        return lines
