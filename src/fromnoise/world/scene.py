"""The scene of a text: who and where it is about, and the slots through which templates ask for it."""

from __future__ import annotations

import random
from collections.abc import Sequence

from . import lexicon as lx
from .actions import THEMES, TRADE_ACTIONS
from .grammar import FORMS, Grammar, call, finish, sentence
from .phrase_pools import ADVERBIALS, CLAUSES, COMPASS, NOUN_PHRASES, PAGE_PHRASES, WEATHER
from .registers import EXTRA, FRONTS, RATES, TAILS
from .requests import LOCKED, OWNED_ANIMALS, PESTS, STRUCTURES, THINGS, WEEDS
from .words import pools

_FARM_DO = ("graze {where}", "stand {where}", "break through the hedge", "run {dir}", "drink from the trough", "wait at the gate", "sleep in the straw",
            "get into the {veg}", "stray {dir}")
ANY_THEMES = ("talk", "idle", "market", "road", "home", "garden", "work")  # what people in the background do
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_PROPER = frozenset((*lx.FIRST_NAMES, *lx.TOWNS, *lx.RIVERS, *lx.PET_NAMES, *_MONTHS, *_DAYS, "I"))  # kept capital; only membership is asked
_FRONTED = frozenset("""
To Not No Neither Either If Having Because Although When While As After Before Since Once Instead By Just For Only At In On With Then Meanwhile
So More Perhaps First And But Toward Against Late Near Outside Now Today Every Out From Without Contrary According Unless Though Even All Until
Under Thanks Like Half Both Together Take Next
""".split())  # nothing more goes before a sentence that begins with one of these
_JOINTS = ("; ", ", and ", "; ", ", but ", ", and ")
_KIN = {"she": ("sister", "aunt", "cousin", "mother", "grandmother", "niece", "daughter"),
        "he": ("brother", "uncle", "cousin", "father", "grandfather", "nephew", "son")}
_SEASONS = dict(zip(_MONTHS, ("winter",) * 2 + ("spring",) * 3 + ("summer",) * 3 + ("autumn",) * 3 + ("winter",), strict=True))
_SKIES = {"winter": (0, 1, 1, 3, 4), "spring": (0, 4, 5, 5, 2), "summer": (2, 2, 2, 5, 0), "autumn": (0, 3, 4, 5)}  # indices in WEATHER
_NAMED_POOLS = {
    "trade": lx.TRADES, "colour": lx.COLOURS, "instrument": lx.INSTRUMENTS, "dish": lx.DISHES, "town": lx.TOWNS, "goods": lx.GOODS, "crop": lx.CROPS,
    "tool": lx.TOOLS, "pet": lx.PETS, "river": lx.RIVERS, "compass": COMPASS, "locked": LOCKED, "structure": STRUCTURES, "animal": OWNED_ANIMALS,
    "thing0": THINGS, "pest": PESTS, "weed": WEEDS,
}
# what `new_people` sets for each text, read by the slots of the same names
_STATE = (
    "p", "P", "q", "Q", "he", "him", "his", "himself", "qhe", "qhim", "qhis", "own", "here", "there", "ptrade", "qtrade", "pkin", "item", "weekday0", "month0",
    "season0", "year", "pet0", "petname0", "inst0", "crop0", "building0", "age1", "crime0", "owner", "crimepp", "vehicle0", "farm0", "wild0", "topic0",
    "virtue0", "vice0", "trouble0", "quantity0", "units0", "goods0",
)


class Plain(str):
    """A sentence to which nothing is added."""


class Scene(Grammar):
    """Grammar plus state. `new_people` and `set_themes` start a text; slots read the state when called.

    p, P: first and full name of the main person; q, Q: of the second; he, him, his, himself and qhe, qhim, qhis.
    """

    def __init__(self, rng: random.Random, surnames: Sequence[str]):
        super().__init__(rng)
        self.surnames = tuple(surnames)
        self.fresh, self.fresh2, self.last = True, True, ""
        for name, words in (*pools().items(), *_NAMED_POOLS.items()):
            self.add_words(name, words)
        self._add_state_slots()
        self.new_people()
        for name in NOUN_PHRASES:  # they refer to each other
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
            for speaker, owner in (("do3", "their"), ("me", "my"), ("you", "your"), ("us", "our"), ("sp", "the")):
                self.slots[f"{speaker}.{form}"] = self._do_slot(which, owner)
        for theme, templates in THEMES.items():
            self.verbs[theme] += [self.verb_phrase(template) for template in templates]
        self.verbs["farmdo"] += [self.verb_phrase(template) for template in _FARM_DO]
        for theme in ANY_THEMES:  # nothing with {own}: the doer is not known
            self.verbs["any"] += [self.verb_phrase(template) for template in THEMES[theme] if "{own}" not in template]
        self.trades = {trade: [self.verb_phrase(template) for template in templates] for trade, templates in TRADE_ACTIONS.items()}
        for name, templates in EXTRA.items():
            self.add_phrases(name, templates)
        for name, templates in (*ADVERBIALS.items(), *CLAUSES.items(), *PAGE_PHRASES.items()):
            self.add_phrases(name, templates)
        self.fronts = {name: self.compile_all(fronts) for name, fronts in FRONTS.items()}
        self.tails = {name: self.compile_all(tails) for name, tails in TAILS.items()}
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
            if phrase in recent:  # the same thing is seldom done twice within a few clauses
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
        for name in ("fruit", "veg", "spice", "goods", "material", "season", "virtue"):
            self.slots[name + "2"] = self._two(name)
        for name in _STATE:
            self.slots[name] = (lambda key: lambda: getattr(self, key))(name)
        self.slots["s"], self.slots["t"] = self._subject, self._second
        self.slots["He"], self.slots["Qhe"] = (lambda: self.he.capitalize()), (lambda: self.qhe.capitalize())
        self.slots["kin.he"] = lambda: "she" if self.random() < 0.5 else "he"
        self.slots["kin.him"] = lambda: "her" if self.random() < 0.5 else "him"
        self.slots["sexkin"] = lambda: self.pick(_KIN[self.he])
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
        self.vehicle0, self.farm0, self.wild0 = self.pick(self.pools["vehicle"]), self.pick(self.pools["farm"]), self.pick(self.pools["wild"])
        for name in ("topic", "virtue", "vice", "trouble"):
            setattr(self, name + "0", self.pick(self.pools[name]))
        self.goods0 = self.pick(lx.GOODS)
        self.quantity0, self.units0 = "", "coins"
        self.crime0 = self.owner = self.crimepp = ""
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

    def plain(self, parts: Sequence) -> str:
        """One of the compiled templates, to be left as it is."""
        return Plain(self.choose(parts))

    def choose(self, parts: Sequence) -> str:
        return sentence(call(parts[int(self.random() * len(parts))]))

    def paragraph(self, sentences: Sequence[str], register: str | None = None) -> str:
        """Sentences to a paragraph; with a register, many get something before or after them, or are joined in pairs."""
        if register is None:
            return finish(" ".join(sentences))
        join = RATES[register][2]
        done: list[str] = []
        for said in sentences:
            said = self.elaborate(said, register)
            pair = done[-1] + said if done else '"'
            if self.random() < join and '"' not in pair and len(done[-1]) < 90 and done[-1][-1] == "." and said.__class__ is not Plain:
                done[-1] = done[-1][:-1] + _JOINTS[int(self.random() * len(_JOINTS))] + self.lower(said)
            else:
                done.append(said)
        return finish(" ".join(done))

    def elaborate(self, said: str, register: str) -> str:
        """The sentence with a front and a tail of the register, each by chance; direct speech stays as it is."""
        if '"' in said or said[-1] != "." or said[0].isdigit() or said.__class__ is Plain:
            return said
        front, tail, _ = RATES[register]
        if ". " in said:  # several sentences in one
            front, tail = front if register == "story" else 0.0, 0.0
        if len(said) > 90:
            front, tail = front / 2, tail / 3
        if self.random() < tail:
            said = said[:-1] + call(self.pick(self.tails[register])) + "."
        if self.random() < front and said.partition(" ")[0].rstrip(",") not in _FRONTED:
            said = sentence(call(self.pick(self.fronts[register])) + self.lower(said))
        return said

    def lower(self, said: str) -> str:
        """Small first letter, unless the sentence begins with a name."""
        first = said.partition(" ")[0].rstrip(",.'s")
        return said if first in _PROPER or said.partition(" ")[0] in _PROPER else said[0].lower() + said[1:]
