"""The noise that real corpora have: boilerplate, spam, broken encodings, other people's addresses, near-duplicates."""

from __future__ import annotations

from .grammar import call, finish
from .scene import Scene

NAVIGATION = ("Home | News | Market | Contact", "Home > Archive > {year.old}", "Menu  Search  Log in", "Skip to content",
    "You are here: Home / {town} / Pages", "<< previous page   next page >>", "Print this page   Send to a friend", "Share   Tweet   Save   Report",
    "Sections: News, Weather, Sport, {event.cap}")
FOOTERS = ("This site uses cookies. By reading on you agree to our terms. Accept / More", "All rights reserved. Terms of use. Privacy.",
    "Copyright {year.old} The {here} Gazette", "Subscribe to our newsletter!", "{n10} comments. Log in to reply.",
    "Last changed on {day} {month}. Page {n2} of {n10}.", "Advertisement", "Read also: {event.cap} in {town}; {food.cap} of the week; {adj.idea.cap} news",
    "Follow us. Tell your friends. Rate this page: 1 2 3 4 5")
SPAM = ("BUY {goods.cap} NOW!!!", "Cheap {goods} cheap {goods} best {goods} online", "You have WON {n100} coins!!! Click here",
    "Make {n100} a day from home", "{goods} {goods} {goods} {goods} {goods}", "100% free {thing.small+} no risk", "Limited offer!!! Only today!!!",
    "Click click click", "Lose weight with {veg}, doctors hate it", "best price {thing.big} buy {thing.big} {thing.big} shop",
    "Hot {goods} in {town} waiting for you")
CONTACTS = ("Write to {mail} for details.", "Call {phone} after {n2} o'clock.", "Questions? {mail} or {phone}", "Contact: {name}, {mail}", "Tel. {phone}",
    "The secretary can be reached at {mail}.")
_MOJIBAKE = (("'", "â€™"), ('"', "â€œ"), (" - ", " â€“ "), ("e ", "Ã© "))


class Noise:
    def __init__(self, scene: Scene):
        self.scene = scene
        scene.slots["mail"], scene.slots["phone"] = self._mail, self._phone
        self.navigation, self.footers = scene.compile_all(NAVIGATION), scene.compile_all(FOOTERS)
        self.spam_lines, self.contacts = scene.compile_all(SPAM), scene.compile_all(CONTACTS)

    def _mail(self) -> str:
        scene = self.scene
        first, last = scene.full_name().lower().split(" ")
        return f"{first}.{last}@{scene.pick(('post', 'mail', 'letters', scene.here.lower()))}.example{scene.pick(('.com', '.org', ''))}"

    def _phone(self) -> str:
        number = self.scene.number
        return f"{number(200, 989)}-555-{number(1000, 9999)}" if self.scene.chance(0.5) else f"+44 {number(20, 79)} {number(1000, 9999)} {number(1000, 9999)}"

    def boilerplate(self, lines: list[str]) -> list[str]:
        """The page with navigation above and a footer below."""
        scene = self.scene
        top = [finish(scene.choose(self.navigation))] if scene.chance(0.6) else []
        bottom = [finish(scene.choose(self.footers)) for _ in range(scene.number(1, 2))] if scene.chance(0.8) else []
        return [*top, *lines, *bottom]

    def contact(self, lines: list[str]) -> list[str]:
        return [*lines, call(self.scene.pick(self.contacts))]

    def spam(self) -> list[str]:
        scene = self.scene
        line = finish(scene.choose(self.spam_lines))
        return [line] * scene.number(2, 9) + [finish(scene.choose(self.spam_lines)) for _ in range(scene.number(2, 8))]

    def broken(self, text: str) -> str:
        """The text as it looks after a wrong decoding."""
        for right, wrong in _MOJIBAKE[:3] if self.scene.chance(0.7) else _MOJIBAKE:
            text = text.replace(right, wrong)
        return text

    def near_copy(self, text: str) -> str:
        """The text with small changes: a line more, a word less, another footer."""
        scene = self.scene
        words = text.split(" ")
        if len(words) > 30:
            del words[scene.number(5, len(words) - 5)]
        text = " ".join(words)
        return text + "\n" + finish(scene.choose(self.footers)) if scene.chance(0.5) else text
