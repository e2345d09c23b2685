"""The scene of a text: who and where it is about, and the slots through which templates ask for it."""

from __future__ import annotations

import random
from collections.abc import Sequence

from . import lexicon as lx
from .actions import THEMES, TRADE_ACTIONS
from .grammar import FORMS, Grammar, call, finish, sentence
from .phrase_pools import ADVERBIALS, CLAUSES, COMPASS, NOUN_PHRASES, WEATHER
from .verbs import plural
from .words import pools

_PLURALS = ("farm", "wild", "folk", "tree", "thing.small", "thing.big", "kin", "tool")
_FARM_DO = ("graze {where}", "stand {where}", "break through the hedge", "run {dir}", "drink from the trough", "wait at the gate", "sleep in the straw", "get into the {veg}", "stray {dir}")
ANY_THEMES = ("talk", "idle", "market", "road", "home", "garden", "work")  # what people in the background do
_SEASONS = {month: season for season, months in (("winter", ("December", "January", "February")), ("spring", ("March", "April", "May")),
                                                 ("summer", ("June", "July", "August")), ("autumn", ("September", "October", "November")))
            for month in months}
_SKIES = {"winter": (0, 1, 1, 3, 4), "spring": (0, 4, 5, 5, 2), "summer": (2, 2, 2, 5, 0), "autumn": (0, 3, 4, 5)}  # indices in WEATHER


class Scene(Grammar):
    """Grammar plus state. `new_people` and `set_themes` start a text; slots read the state when called.

    p, P: first and full name of the main person; q, Q: of the second; he, him, his, himself and qhe, qhim, qhis.
    """

    def __init__(self, rng: random.Random, surnames: Sequence[str]):
        super().__init__(rng)
        self.surnames = tuple(surnames)
        self.fresh, self.fresh2, self.last = True, True, ""
        for name, words in pools().items():
            self.add_words(name, words)
        for name, words in (("trade", lx.TRADES), ("colour", lx.COLOURS), ("instrument", lx.INSTRUMENTS), ("dish", lx.DISHES), ("town", lx.TOWNS), ("goods", lx.GOODS), ("crop", lx.CROPS), ("tool", lx.TOOLS), ("pet", lx.PETS), ("river", lx.RIVERS),
                            ("petname", lx.PET_NAMES), ("woman", lx.WOMEN), ("man", lx.MEN), ("crime", lx.CRIMES), ("compass", COMPASS)):
            self.add_words(name, words)
        for name in _PLURALS:
            self.add_words(name + "+", [plural(word) for word in self.pools[name]])
        self._add_state_slots()
        self.new_people()
        for name in NOUN_PHRASES:
            self.slots[name] = self._late(name)
        for name, templates in NOUN_PHRASES.items():
            self.add_phrases(name, templates)
        self._adverbials_and_verbs()
        self.new_people()

    def _adverbials_and_verbs(self) -> None:
        """Clauses, adverbials and verb phrases refer to each other: slots look the compiled ones up when called."""
        for name in (*ADVERBIALS, *CLAUSES):
            self.slots[name] = self._late(name)
        self.verbs.update({theme: [] for theme in THEMES})
        self.verbs["any"], self.verbs["farmdo"] = [], []
        for name in ("any", "farmdo", *THEMES):  # any.past and the like, before the phrases themselves exist
            for form, which in FORMS.items():
                self.slots[f"{name}.{form}"] = self._verb_slot(self.verbs[name], which)
        self._do: list[tuple] = []
        for form, which in FORMS.items():
            self.slots[f"do.{form}"] = self._do_slot(which, "his")
            self.slots[f"do2.{form}"] = self._do_slot(which, "qhis")
            for speaker, owner in (("do3", "their"), ("me", "my"), ("you", "your"), ("us", "our")):
                self.slots[f"{speaker}.{form}"] = self._do_slot(which, owner)
        for theme, templates in THEMES.items():
            self.verbs[theme] += [self.verb_phrase(template) for template in templates]
        self.verbs["farmdo"] += [self.verb_phrase(template) for template in _FARM_DO]
        for theme in ANY_THEMES:  # nothing with {own}: the doer is not known
            self.verbs["any"] += [self.verb_phrase(template) for template in THEMES[theme] if "{own}" not in template]
        self.trades = {trade: [self.verb_phrase(template) for template in templates] for trade, templates in TRADE_ACTIONS.items()}
        self.verbs["work"] += []
        for name, templates in (*ADVERBIALS.items(), *CLAUSES.items()):
            self.add_phrases(name, templates)
        self.weather = tuple(self.compile_all(templates) for templates in WEATHER.values())
        self.set_themes("home", "talk")

    def _late(self, name: str):
        random, pools = self.random, self.pools

        def ask() -> str:
            pool = pools[name]
            part = pool[int(random() * len(pool))]
            return part if part.__class__ is str else part()
        return ask

    def _verb_slot(self, phrases: list[tuple], which: int):
        random = self.random

        def verb() -> str:
            phrase = phrases[int(random() * len(phrases))]
            rest = phrase[5]
            return phrase[which] + (rest if rest.__class__ is str else rest())
        return verb

    def _do_slot(self, which: int, owner: str):
        random = self.random
        recent = self._recent = getattr(self, "_recent", [None] * 3)

        def verb() -> str:
            phrases = self._do
            phrase = phrases[int(random() * len(phrases))]
            if phrase in recent:  # the same thing is not done twice within a few clauses
                phrase = phrases[int(random() * len(phrases))]
            recent[0], recent[1], recent[2] = recent[1], recent[2], phrase
            rest = phrase[5]
            if rest.__class__ is str:
                return phrase[which] + rest
            self.own = getattr(self, owner) if owner.endswith("his") else owner
            text = phrase[which] + rest()
            self.own = self.his
            return text
        return verb

    def _add_state_slots(self) -> None:
        self.weather: tuple = ()
        self.slots["wx"] = self._weather
        self.slots["third"] = self._third
        self.slots["feel2"] = self._two("adj.feel")
        self.slots["fruit2"], self.slots["veg2"], self.slots["spice2"] = self._two("fruit"), self._two("veg"), self._two("spice")
        for name in ("p", "P", "q", "Q", "he", "him", "his", "himself", "qhe", "qhim", "qhis", "own", "here", "ptrade", "qtrade", "pkin",
                     "item", "weekday0", "month0", "season0", "year", "there", "pet0", "petname0", "inst0", "crop0", "building0", "age1"):
            self.slots[name] = (lambda key: lambda: getattr(self, key))(name)
        self.slots["s"], self.slots["t"] = self._subject, self._second
        self.slots["He"], self.slots["Qhe"] = (lambda: self.he.capitalize()), (lambda: self.qhe.capitalize())
        self.slots["name"] = self.full_name
        self.slots["n2"] = lambda: str(self.number(2, 9))
        self.slots["n10"] = lambda: str(self.number(11, 99))
        self.slots["n100"] = lambda: str(self.number(100, 999))
        self.slots["year.old"] = lambda: str(self.number(1780, 1999))
        self.slots["age"] = lambda: str(self.number(8, 84))
        self.slots["day"] = lambda: str(self.number(1, 28))

    def _two(self, pool: str):
        """Two different words of a pool with "and"."""
        words = self.pools[pool]

        def pair() -> str:
            first = int(self.random() * len(words))
            return f"{words[first]} and {words[(first + 1 + int(self.random() * (len(words) - 1))) % len(words)]}"
        return pair

    def _weather(self) -> str:
        pool = self.pools["wx.any"] if self.random() < 0.4 else self.weather[self.sky]
        return call(pool[int(self.random() * len(pool))])

    def _third(self) -> str:
        if self.third_known:
            return "the " + self.third
        self.third_known = True
        return "a~" + (self.pick(self.pools["adj.person"]) + " " if self.random() < 0.5 else "") + self.third

    def _subject(self) -> str:
        if self.fresh or (self.random() < 0.22) or (self.same and self.last != "s"):
            self.fresh = False
            self.last = "s"
            return self.p
        self.last = "s"
        return self.he

    def _second(self) -> str:
        if self.fresh2 or self.same or self.random() < 0.5:
            self.fresh2 = False
            self.last = "t"
            return self.q
        self.last = "t"
        return self.qhe

    # --- starting a text ----------------------------------------------------------------------------------------------
    def full_name(self) -> str:
        return f"{self.pick(lx.FIRST_NAMES)} {self.pick(self.surnames)}"

    def new_people(self) -> None:
        """Two new people, a town and a season; the two are mostly a woman and a man, so that pronouns are clear."""
        woman = self.chance(0.5)
        self.p = self.pick(lx.WOMEN if woman else lx.MEN)
        self.he, self.him, self.his, self.himself = ("she", "her", "her", "herself") if woman else ("he", "him", "his", "himself")
        second = woman if self.chance(0.12) else not woman
        self.q = self.pick(lx.WOMEN if second else lx.MEN)
        while self.q == self.p:
            self.q = self.pick(lx.WOMEN if second else lx.MEN)
        self.qhe, self.qhim, self.qhis = ("she", "her", "her") if second else ("he", "him", "his")
        self.same = second == woman
        self.P, self.Q = f"{self.p} {self.pick(self.surnames)}", f"{self.q} {self.pick(self.surnames)}"
        self.own = self.his
        self.here, self.ptrade, self.qtrade = self.pick(lx.TOWNS), self.pick(lx.TRADES), self.pick(lx.TRADES)
        self.pkin = self.pick(self.pools["kin"])
        self.third, self.third_known = self.pick(self.pools["folk"]), False
        self.item = self.pick(self.pools["thing.small"])
        self.there = self.pick(lx.TOWNS)
        while self.there == self.here:
            self.there = self.pick(lx.TOWNS)
        self.pet0, self.petname0, self.inst0 = self.pick(lx.PETS), self.pick(lx.PET_NAMES), self.pick(lx.INSTRUMENTS)
        self.crop0, self.building0, self.age1 = self.pick(lx.CROPS), self.pick(self.pools["building"]), str(self.number(35, 80))
        self.weekday0, self.month0 = self.pick(self.pools["weekday"]), self.pick(self.pools["month"])
        self.season0 = _SEASONS[self.month0]
        skies = _SKIES[self.season0]
        self.sky = skies[int(self.random() * len(skies))]
        self.year = str(self.number(1780, 1999))
        self.fresh = self.fresh2 = True
        self.last = ""

    def set_themes(self, *themes: str) -> None:
        """What `{do.*}` draws from: themes, or "trade" for the main person's work."""
        self._do = [phrase for theme in themes for phrase in (self.trades[self.ptrade] * 2 if theme == "trade" else self.verbs[theme])]

    # --- making text --------------------------------------------------------------------------------------------------
    def say(self, part) -> str:
        """One sentence (or several) from a compiled template: capital letter first."""
        return sentence(call(part))

    def choose(self, parts: Sequence) -> str:
        return sentence(call(parts[int(self.random() * len(parts))]))

    def paragraph(self, sentences: Sequence[str]) -> str:
        return finish(" ".join(sentences))
