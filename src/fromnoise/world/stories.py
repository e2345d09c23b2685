"""Narrative: stories from plots, chapters of books, letters."""

from __future__ import annotations

from .dialogue import Dialogue
from .frames import NARRATIVE, PRESENT
from .grammar import call, finish
from .plots import OPENINGS, PLOTS
from .scene import Scene

CLOSINGS = (
    "[That is all there is to tell.|And that was the end of the matter.|So ended the business of the {item}.|Whether it is true, nobody can say.|The rest "
    "is soon told.]",
    "People in {here} still laugh about it.",
    "{s} never spoke of it again.", "[Since then|From that day on] {s} {adv.often2} {any.past} without thinking of {q}.",
    "It was {virtue}, not luck, that settled the matter.", "{virtue.cap} had won; {vice} had lost.",
    "And {q}? {Qhe} {do2.past}, as always.", "When {wx}, {s} still thinks of that {season0}.", "That night {s} slept well.",
    "\"{virtue.cap},\" {s} said afterwards, \"is worth more than {goods}.\"",
)
LETTER_OPENINGS = ("Dear {q},", "My dear {q},", "Dear {kin},", "Dear friend,", "Dear Sir or Madam,")
LETTER_FRAMES = (
    "Thank you for [your letter|the {item}|the {food}|the news]. It came {when}.", "I hope that you are [well|better|no longer {adj.feel}].",
    "Here {wx}, and I have been {idle.ing}.", "Yesterday I {any.past} and then {any.past}.",
    "Do you remember {third}? [{He} {any.past}, would you believe it.|They say {that}.|We met {where}.]", "I have {any.pp} at last, which took {span.len}.",
    "Please send me [the {item}|a~{thing.small}|news of {topic}|some {goods}] when you can.",
    "The {event} was {adj.good}; {group} were {any.ing} until midnight.", "I am {adv.degree} {adj.feel}, but do not worry.",
    "You ask about {topic}. I think {that}.", "{bg} here.", "Your {kin} {any.past} and sends {emotion.love}.",
    "If {wx} where you are, do not forget to {any.base}.", "We had {some.food} on {weekday} and thought of you.",
    "I would come myself, but the {vehicle} is [late|full|out of order], and I have to {any.base} first.",
    "The {building} is [closed|being painted {colour}|as {adj.place} as ever].", "Nobody knows {wh}.",
    "I must tell you about {third}, who {any.past} {when}.", "It is {adj.weather} for {month0}.", "What do you make of {topic}?",
)
LETTER_CLOSINGS = ("Yours, {p}", "With love, {p}", "Your {sexkin}, {p}", "Yours truly, {P}", "Write soon. {p}")
TITLES = ("The {item.cap}", "{p} and {q}", "A {season0.cap} in {here}", "What {p} Found", "The {ptrade.cap} of {here}", "How {p} Came to {here}",
    "{weekday0}", "In {street}", "A {event.cap} in {month0}", "The Road to {there}", "{q} Waits", "The {building.cap}")


class Stories:
    def __init__(self, scene: Scene, dialogue: Dialogue):
        self.scene, self.dialogue = scene, dialogue
        slots = scene.slots
        slots.setdefault("emotion.love", lambda: scene.pick(("love", "good wishes", "greetings", "a kiss", "regards")))
        self.openings = scene.compile_all(OPENINGS)
        self.narrative = scene.compile_all(NARRATIVE)
        self.present = scene.compile_all(PRESENT)
        self.closings = scene.compile_all(CLOSINGS)
        self.titles = scene.compile_all(TITLES)
        self.letter_parts = tuple(scene.compile_all(parts) for parts in (LETTER_OPENINGS, LETTER_FRAMES, LETTER_CLOSINGS))
        self.plots = [(plot, scene.compile_all(plot.steps), scene.compile_all(plot.short),
                       [(scene.compile(q), scene.compile(a)) for q, a in plot.ask]) for plot in PLOTS]

    def start(self):
        """New people and a plot."""
        self.scene.new_people()
        plot = self.scene.pick(self.plots)
        self.scene.set_themes(*plot[0].themes)
        return plot

    def fill(self, count: int) -> list[str]:
        """`count` narrative frames."""
        scene, frames = self.scene, self.narrative
        return [scene.choose(frames) for _ in range(count)]

    def tell(self, plot, fillers: float = 0.8, talk: float = 0.5) -> list[str]:
        """Paragraphs of the plot. fillers: mean number of frames after a step; talk: chance of direct speech after it."""
        scene = self.scene
        steps = plot[1]
        paragraphs, sentences = [], []
        scene.fresh = scene.fresh2 = True
        sentences.append(scene.plain(self.openings))
        scene.fresh = scene.fresh and scene.p not in sentences[0]
        for step in steps:
            sentences += self.fill(int(scene.random() * 2 * fillers + 0.5))
            sentences.append(scene.say(step))
            if scene.chance(talk):
                paragraphs.append(scene.paragraph(sentences, "story"))
                paragraphs += [finish(line) for line in self.dialogue.block(scene.number(1, 2))]
                sentences = []
                scene.fresh = True
            elif len(sentences) > 3 and scene.chance(0.5):
                paragraphs.append(scene.paragraph(sentences, "story"))
                sentences = []
                scene.fresh = True
        last = [sentences.pop()] if sentences else []  # what is said at the end stays as it is
        if scene.chance(0.4):
            last.append(scene.choose(self.closings))
        ending = [scene.paragraph(part, register) for part, register in ((sentences, "story"), (last, None)) if part]
        return [*paragraphs, " ".join(ending)] if ending else paragraphs

    def chapter(self) -> list[str]:
        plot = self.start()
        scene = self.scene
        paragraphs = self.tell(plot, fillers=scene.random() * 2.2, talk=0.55)
        if scene.chance(0.6):
            title = scene.say(scene.pick(self.titles))
            paragraphs.insert(0, f"Chapter {scene.number(1, 30)}. {title}" if scene.chance(0.5) else title)
        return paragraphs

    def long_chapter(self) -> list[str]:
        plot = self.start()
        return [f"Chapter {self.scene.number(1, 30)}", *self.tell(plot, fillers=2.5 + self.scene.random(), talk=0.6)]

    def short_story(self) -> list[str]:
        plot = self.start()
        return self.tell(plot, fillers=0.3 + self.scene.random(), talk=0.2)

    def day(self) -> list[str]:
        """An ordinary day: narrative without a plot, two or three paragraphs."""
        scene = self.scene
        scene.new_people()
        scene.set_themes(*scene.sample(("home", "garden", "farm", "market", "road", "talk", "idle", "trouble", "water", "trade", "work"), 2), "idle")
        paragraphs = []
        first = [scene.plain(self.openings)]
        for _ in range(scene.number(1, 4)):
            first += self.fill(scene.number(3, 6))
            paragraphs.append(scene.paragraph(first, "story"))
            first = []
            scene.fresh = True
            if scene.chance(0.3):
                paragraphs += [finish(line) for line in self.dialogue.block(1)]
        return paragraphs

    def letter(self) -> list[str]:
        scene = self.scene
        scene.new_people()
        scene.third_known = True
        opening, frames, closing = self.letter_parts
        head = scene.choose(opening)
        body = []
        for _ in range(scene.number(1, 3)):
            body.append(scene.paragraph([scene.say(frame) for frame in scene.sample(frames, scene.number(2, 5))], "letter"))
        place = f"{scene.here}, {scene.number(1, 28)} {scene.month0} {scene.year}"
        return ([place] if scene.chance(0.6) else []) + [head, *body, finish(call(scene.pick(closing)))]
