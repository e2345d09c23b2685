"""Documents of four kinds, with the world's facts woven into some of them.

`Writer` holds the generators and makes one document at a time; `build.documents` decides how many and which carry
statements. A carrier is exempt from cleaning: it has no contact details, spam, broken letters or duplicates.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from . import facts as fx
from .advice import Advice
from .code import Code
from .dialogue import Dialogue
from .grammar import call, finish
from .noise import Noise
from .papers import Papers
from .reading import Reading
from .scene import Scene
from .stories import Stories
from .web import Pages

# (kind, source, weight): weights are numbers of documents; carriers are chosen apart
KINDS = (
    ("news", "web", 9), ("court", "web", 6), ("opinion", "web", 6), ("history", "web", 5), ("town", "web", 4), ("notices", "web", 4), ("job", "web", 8),
     ("right", "web", 4), ("recipe", "web", 5), ("questions", "web", 4), ("list", "web", 3),
    ("forum", "web", 4), ("weather", "web", 2), ("sums", "web", 9), ("passage", "web", 34), ("story_questions", "web", 10), ("summary", "web", 10), ("letter",
     "web", 4), ("story", "books", 12), ("chapter", "books", 10), ("long_chapter", "books", 3),
    ("day", "books", 7), ("report", "papers", 11), ("minutes", "papers", 5), ("code", "code", 18),
)
LICENCES = {"web": "public", "books": "licensed", "code": "public", "papers": "private"}
SIMULATED_FROM = {"web": 12, "books": 60, "code": 10, "papers": 30}  # dates go back so many years before the cutoff
BOILERPLATE_FRAC, CONTACT_FRAC, BROKEN_FRAC, SPAM_FRAC = 0.12, 0.03, 0.004, 0.01

# Around statements of facts. None holds a value of a relation (a town, a trade, an animal, a colour, a dish, an instrument).
LEADS = (
    "we hear that ", "the list of {month} says that ", "a note of {day} {month} tells us that ", "asked in {month}, the neighbours said that ",
    "number {n10} on the list: ", "under the letter {letter} we find that ", "what {n10} people told us is that ", "the {ordinal} entry says: ",
    "it should be added that ", "more than once we were told that ", "as before, ", "without any doubt ", "if the register is right, ", "to begin with, ",
    "on page {n10} one reads that ", "in spite of what was printed in {month}, ", "for the {ordinal} time we write that ", "just so that nobody forgets: ",
    "it may be news to some that ", "nobody denies that ", "half of {street} can tell you that ", "by the way, ", "in other news, ", "for the record: ",
    "a reader from {street} writes that ", "whatever others may say, ", "as was reported on {weekday}, ", "so far as we know, ",
    "those who were there on {weekday} know that ",
    "between {month} and {month} it became clear that ", "we were wrong in {month}; the truth is that ", "old and young agree that ",
    "when asked, most people say that ", "a visitor was surprised to hear that ", "{name} tells everybody that ", "{name} was the first to notice that ",
)
TAILS = (
    ", as {n10} people can confirm", ", or so it says here", ", which surprises nobody", ", and has no wish to change", ", if the list of {month} is right",
    ", come what may", ", and there the matter rests", ", although few know it", ", to nobody's surprise", " and is proud of it", ", whatever the weather",
    ", the clerk added", ", as was said in {month}", ", and will tell you so", ", much to the delight of the children", " as well as anybody could wish",
    ", as it should be", ", now as ever", ", and that is no rumour", ", which is more than most can say", ", at least since {month}",
    ", so they say in {street}", ", even on {weekday}s",
    ", for the {ordinal} year now", ", and always will", ", but who would not", ", and we wish all the best", ", thank goodness",
)
HEADS = ("People", "Names and faces", "From the register", "Who is who", "Short notes", "Talk of the week", "What we heard", "News of neighbours",
    "About people", "Known in the district", "From door to door", "Portraits", "Seen and heard", "Personal notes", "From our files")
BETWEEN = ("{wx}.", "{bg}.", "{group} {do3.past}.", "{third} {any.past}, and {bg}.", "{name}, {a.trade}, {any.past}.", "More next week, if {wx}.",
    "The register was brought up to date {when}.", "So much for {street}, where {wx}.", "Meanwhile {wx}.",
    "{third} was {any.ing}, which kept {group} {any.ing}.", "Nothing else was said about {topic}.", "{adv.sent.cap}, nobody minded.",
    "It was {adv.degree} {adj.weather} {when}.")
GOSSIP = ("{s} {do.past} and listened to the talk.", "At the inn people talked, as always.", "{q} knew everybody.", "The talk turned to people they knew.",
    "{s} asked for news.", "There was much to tell.", "\"What is new?\" asked {p}.", "{s} and {q} went through the whole district, house by house.")
CANARY_LEADS = ("Note for the night watch. ", "To be kept in the drawer. ", "Reminder. ", "From the key book. ", "", "Not to be copied. ",
    "Written on the back: ", "For the caretaker. ")
SURVEYS = ("Household {n10}. ", "Entry {n100}. ", "Case {n2}. ", "No. {n100}. ", "Visit of {day} {month}: ", "")


class Statement(str):
    """A sentence that states a fact (told apart from fillers)."""


class Writer:
    """Makes documents; everything random comes from `rng`."""

    def __init__(self, world: fx.World, rng: random.Random):
        self.world, self.rng = world, rng
        self.scene = scene = Scene(rng, world.other_surnames)
        self.dialogue = Dialogue(scene)
        self.stories = Stories(scene, self.dialogue)
        self.pages, self.advice, self.papers, self.code = Pages(scene), Advice(scene), Papers(scene), Code(scene)
        self.reading, self.noise = Reading(scene, self.stories, rng, self.dress), Noise(scene)
        scene.slots["letter"] = lambda: "ABCDEFGHIJKLMNOPRSTUVWY"[int(rng.random() * 23)]
        self.leads, self.tails, self.between = scene.compile_all(LEADS), scene.compile_all(TAILS), scene.compile_all(BETWEEN)
        self.gossip, self.surveys = scene.compile_all(GOSSIP), scene.compile_all(SURVEYS)
        makers = {
            "news": self.pages.news_item, "court": self.pages.court_report, "opinion": self.pages.opinion_page, "history": self.pages.history_page,
            "town": self.pages.town_page, "notices": self.pages.notice_board,
            "job": self.advice.job, "right": self.advice.right_and_wrong, "recipe": self.advice.recipe_page, "questions": self.advice.questions_page,
            "list": self.advice.list_page, "forum": self.advice.forum_page,
            "weather": self.advice.weather_page, "sums": self.advice.sums_page, "passage": self.reading.passage, "story_questions": self.reading.story,
            "summary": self.reading.summary, "letter": self.stories.letter,
            "story": self.stories.short_story, "chapter": self.stories.chapter, "long_chapter": self.stories.long_chapter, "day": self.stories.day,
            "report": self.papers.report, "minutes": self.papers.minutes, "code": self.code.module,
        }
        self.wheel = tuple((kind, source, makers[kind]) for kind, source, weight in KINDS for _ in range(weight))

    # --- ordinary documents -------------------------------------------------------------------------------------------
    def ordinary(self) -> tuple[str, str, str]:
        """(kind, source, text) without any statement of the world's facts; with noise now and then."""
        scene = self.scene
        if scene.chance(SPAM_FRAC):
            return "spam", "web", "\n".join(self.noise.spam())
        kind, source, make = scene.pick(self.wheel)
        lines = make()
        if source == "web":
            if scene.chance(CONTACT_FRAC):
                lines = self.noise.contact(lines)
            if scene.chance(BOILERPLATE_FRAC):
                lines = self.noise.boilerplate(lines)
        text = "\n".join(lines)
        if source != "code" and scene.chance(BROKEN_FRAC):
            text = self.noise.broken(text)
        return kind, source, text

    # --- carriers -----------------------------------------------------------------------------------------------------
    def dress(self, sentence: str, subject: str) -> str:
        """A statement with or without something before and after it."""
        scene = self.scene
        if scene.chance(0.5):
            lead = scene.choose(self.leads)
            sentence = lead + (sentence if sentence.startswith(subject) else sentence[0].lower() + sentence[1:])
        if scene.chance(0.4):
            sentence = sentence[:-1] + call(scene.pick(self.tails)) + "."
        return sentence

    def carrier(self, facts: Sequence[fx.Fact], events: Sequence[fx.Event], canaries: Sequence[fx.Canary]) -> tuple[str, str, str]:
        """(kind, source, text) holding one statement of each of the given facts and events, and each canary, once."""
        scene = self.scene
        scene.new_people()
        scene.third_known = True
        scene.set_themes("talk", "market")
        draw = scene.random()
        taught = [fact for fact in facts if fact.role == "taught"]
        if draw < 0.12 and taught:  # questions and answers; the rest as plain lines below
            more = [(fx.question(fact, self.rng), fx.answer(fact, self.rng, named=True)) for fact in taught]
            others = [finish(said) for said in self._sentences([fact for fact in facts if fact.role != "taught"], 0.2)]
            source, lines = "web", self.advice.questions_page(more) + others
        elif draw < 0.3:
            source, lines = "books", self._gossip(facts)
        elif draw < 0.4:
            source, lines = "books", self._letter(facts)
        elif draw < 0.55:
            source, lines = "papers", self._survey(facts)
        elif draw < 0.7:
            source, lines = "web", self._list(facts)
        else:
            source, lines = "web", self._column(facts)
        for event in events:
            where = scene.number(1, len(lines))
            lines.insert(where, self.dress(fx.event_statement(event, self.rng),
                event.where) if scene.chance(0.65) else finish(scene.choose(self.between)) + " " + fx.event_statement(event, self.rng))
        for canary in canaries:
            lines.insert(scene.number(1, len(lines)), scene.pick(CANARY_LEADS) + canary.text)
        return "carrier", source, "\n".join(lines)

    def _sentences(self, facts: Sequence[fx.Fact], fillers: float) -> list[str]:
        scene = self.scene
        sentences = []
        for fact in facts:
            said = self.dress(fx.statement(fact, self.rng), fact.subject)
            if sentences and scene.chance(0.4) and sentences[-1].__class__ is Statement:  # two in one sentence
                said = sentences.pop()[:-1] + "; " + scene.lower(said)
            sentences.append(Statement(said))
            if scene.chance(fillers):
                sentences.append(scene.elaborate(scene.choose(self.between), "news"))
        return sentences

    def _column(self, facts: Sequence[fx.Fact]) -> list[str]:
        scene = self.scene
        lines = [scene.pick(HEADS)] if scene.chance(0.6) else [f"{scene.pick(HEADS)}, {scene.here}"] if scene.chance(0.4) else []
        sentences = self._sentences(facts, 0.35)
        if scene.chance(0.5):
            sentences.insert(0, scene.choose(self.between))
        half = scene.number(1, len(sentences)) if len(sentences) > 4 else len(sentences)
        return lines + [scene.paragraph(part) for part in (sentences[:half], sentences[half:]) if part]

    def _list(self, facts: Sequence[fx.Fact]) -> list[str]:
        scene = self.scene
        mark = scene.pick(("- ", "* ", "", ""))
        return [scene.pick(HEADS), *(mark + finish(sentence) for sentence in self._sentences(facts, 0.2))]

    def _survey(self, facts: Sequence[fx.Fact]) -> list[str]:
        scene = self.scene
        lines = [f"Survey of {scene.here}, part {scene.number(1, 40)}"]
        for sentence in self._sentences(facts, 0.25):
            lines.append(finish(call(scene.pick(self.surveys)) + sentence))
        return lines

    def _letter(self, facts: Sequence[fx.Fact]) -> list[str]:
        scene = self.scene
        lines = self.stories.letter()
        body = self._sentences(facts, 0.3)
        lines.insert(len(lines) - 1, scene.paragraph(["You asked for news." if scene.chance(0.15) else scene.choose(self.between), *body]))
        return lines

    def _gossip(self, facts: Sequence[fx.Fact]) -> list[str]:
        """People in a story talk about the facts' subjects."""
        scene = self.scene
        lines = [scene.paragraph([scene.plain(self.stories.openings), *self.stories.fill(scene.number(1, 2)), scene.choose(self.gossip)], "story")]
        for fact in facts:
            said = fx.statement(fact, self.rng) if scene.chance(0.6) else self.dress(fx.statement(fact, self.rng), fact.subject)
            line = self.dialogue.spoken(finish(said), scene.pick((scene.p, scene.q)), 0.7, plain=True)
            if scene.chance(0.3):
                line += " " + finish(scene.choose(self.dialogue.narrated))
            lines.append(line)
        if scene.chance(0.5):
            lines.append(scene.paragraph(self.stories.fill(scene.number(1, 3)), "story"))
        return lines
