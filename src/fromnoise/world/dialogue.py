"""Direct speech: exchanges that belong together, and how they are told."""

from __future__ import annotations

from .frames import SAID, UTTERANCES
from .grammar import call
from .scene import Scene

# what one says, and what the other may answer
EXCHANGES = (
    ("Have you seen my {item}?", ("It is {where}, where you left it.", "{third} took it.", "Not since {weekday0}.", "Which {item}? You have {small}.",
     "Look in the {room}.")),
    ("Where have you been?", ("{where.cap}.", "I was {any.ing}, if you must know.", "I went {dir} and forgot the time.", "Nowhere.",
     "With {third}. Do not ask.")),
    ("Who told you {that}?", ("{third} did.", "Everybody knows it.", "I saw it with my own eyes.", "Nobody. I guessed.",
     "My {kin}, and {kin.he} is never wrong.")),
    ("What do you want for the {item}?", ("{small} coins, and not one less.", "It is not for sale.", "Make me an offer.",
     "Give me the {thing.small} and we are even.", "Nothing. Take it.")),
    ("Will you help me [with the {thing.big}|to {us.base}]?", ("Gladly.", "Not before {weekday0}.", "If you help me afterwards.", "I would, but {wx}.",
     "Hold the lantern, then.", "With pleasure, after supper.")),
    ("What is the weather doing?", ("Look out of the window: {wx}.", "It could be worse.", "What it always does in {month0}.", "Nothing good.")),
    ("Are you {adj.feel}?", ("Not {adj.feel}, only {adj.feel}.", "A little.", "Who would not be?", "No. Should I be?", "I was, before {third} came.")),
    ("What is there to eat?", ("{some.food}.", "What there was yesterday: {food}.", "Nothing but {food} and {drink}.", "Whatever you cook.",
     "{food}, if the cat has left any.")),
    ("How far is it to {town}?", ("{n2} miles by the road, and {n2} over the hill.", "Too far to walk.", "An hour, if you do not stop to talk.",
     "You came from there, didn't you?")),
    ("What did {third} want?", ("Money, I suppose.", "To {any.base}. I said no.", "Nothing. Only to complain about {topic}.", "He would not say.",
     "Our {item}, of all things.")),
    ("Why did you {you.base}?", ("Because nobody else did.", "I was {adj.feel}.", "I thought you wanted it.", "It seemed a~{adj.idea} idea.",
     "Because {wx}.", "Ask {third}.")),
    ("It was a mistake to {us.base}.", ("You say that now.", "Mistakes can be mended.", "I told you {when}.", "We had no choice.", "Nobody is blaming you.")),
    ("I do not trust {third}.", ("Why not?", "You trust nobody.", "He paid his debts, which is more than some do.", "Neither do I, but what can we do?",
     "Because of {topic}?")),
    ("Something is wrong with the {thing.big}.", ("It is only {adj.thing}.", "Then mend it.", "It was all right {time.past}.", "Leave it to the {trade}.",
     "You said the same of the {item}.")),
    ("Shall we ask {third}?", ("Better not.", "Ask, by all means, but pay nothing.", "I have done so already.", "What does {third} know about it?",
     "Yes, and at once.")),
    ("I have an idea.", ("Not another one!", "Is it about {topic}?", "I hope it is better than the last.", "Let us hear it.",
     "Then keep it until {weekday0}.")),
    ("I am going to {town}.", ("What for?", "Bring me {goods} when you come back.", "Not in this weather.", "Take the {cloth}; {wx}.",
     "Give my love to my {kin}.")),
    ("Do you remember the {event}?", ("How could I forget it?", "I was ill that week.", "You danced with {third}.",
     "That was before the {building} was built.", "Only the {food}.")),
    ("There is {a.wild} in the {room}.", ("Let it be.", "Then shut the door.", "Again?", "It was here before us.", "It is after the {food}.")),
    ("What do you think of {topic}?", ("Less and less.", "I try not to.", "I think {that}.", "It will pass.", "Ask me when {wx}.")),
    ("Can I borrow your {thing.big}?", ("You still have my {item}.", "If you bring it back before the {event}.", "It is broken.",
     "What is wrong with yours?", "Take it. I never use it.")),
    ("You are late.", ("The {vehicle} was late, not I.", "I know. I had to {me.base} first.", "Only by an hour.", "{wx}. What did you expect?",
     "And you are early.")),
    ("Is anybody at home?", ("Come in, it is open.", "Only the {pet}.", "Who is asking?", "Wipe your feet first.")),
    ("What does it say in the {paper}?", ("That {there} wants a new bridge.", "Nothing new.", "It says that the price of {goods} is up again.",
     "I cannot read it without my glasses.")),
    ("How is your {kin}?", ("Better, thank you.", "Still {any.ing}, at eighty.", "Much the same.", "Gone to {town}, and good luck to {kin.him}.",
     "Asking for you.")),
    ("I will never {any.base} again.", ("You said that last {season0}.", "Never is a long time.", "We shall see.", "Nobody asked you to.")),
    ("Have you ever {any.pp}?", ("Once, when I was young.", "Never, and I am not sorry.", "More often than I care to say.", "Who has not?",
     "Only by mistake.")),
    ("You ought to see the doctor.", ("It is only a~{trouble}.", "The doctor is worse off than I am.", "Tomorrow, perhaps.",
     "I did. He told me to {idle.base}.")),
    ("What shall we do now?", ("Wait.", "Go home and {any.base}.", "First we eat.", "We could {us.base}.", "Start again from the beginning.")),
    ("It is {adv.degree} {adj.weather}.", ("You get used to it.", "It was worse in {month}.", "Good for the {crop}, though.", "Put on your {cloth}, then.",
     "I had not noticed.")),
    ("I owe you an apology.", ("You owe me {small} coins as well.", "It is forgotten.", "What for?", "Sit down and have some {drink}.")),
    ("Listen!", ("I hear nothing.", "It is only {a.wild}.", "That is the {vehicle}.", "Somebody is {where}.", "It comes from the {room}.")),
    ("How old is it?", ("Older than both of us.", "My {kin} bought it in {year.old}.", "Nobody knows.", "{n10} years, or so they say.")),
    ("Thank you for the {item}.", ("It was nothing.", "Keep it. I have another.", "You can thank {third}.", "Does it work?")),
    ("Tell me the truth.", ("I {any.past}, and I am sorry.", "The truth is {that}.", "You would not believe it.", "I always do.", "All of it?")),
    ("They say {that}.", ("They say a great deal.", "Then it must be false.", "Who are they?", "And what if it is true?", "So I have heard.")),
    ("What is that smell?", ("{smell.cap}, I think.", "Your {food}, burning.", "The {building}, when the wind is in the {compass}.", "I smell nothing.")),
    ("Must you {you.base} now?", ("When else?", "I am nearly done.", "It cannot wait.", "Do you want to do it?")),
    ("May I ask you something?", ("If it is not about {topic}.", "You just did.", "Ask.", "That depends.")),
    ("One day I shall leave {here}.", ("Where would you go?", "And who would feed the {farm+}?", "You say so every {season0}.", "Take me with you.",
     "Everyone comes back.")),
)
NARRATED = (  # told after a line of speech
    "[Nobody answered.|There was a pause.|{s} [laughed|sighed|nodded|shook {his} head|said nothing|thought about it|looked at the floor].|{t} [turned "
    "away|smiled|frowned|put down the {item}|went on {idle.ing}].]",
    "{s} {do.past}.", "{t} {do2.past}.", "{bg}.", "For {small} {unit} neither of them spoke[| of it| of {topic}].", "{wx}.", "{s} {feels}.", "{t} {feels}.",
)

ASIDES = (  # after "said Mara"
    ", {sp.ing}", ", {sp.ing} {where}", " and {sp.past}", ", who was {adv.degree} {adj.feel}", ", and {bg}", ", though {wx}", ", as {a.folk} came in",
    " with a look at the {item}", " over {some.food}", ", {adv.manner} {sp.ing}", " before {sp.ing}", " when {wx}", ", {time.past}", " to {a.folk}",
    ", without {any.ing}",
    " from behind the {thing.big}", " for the {ordinal} time", " and pointed to the {thing.big}", ", still {any.ing}", ", putting down the {thing.small}",
    ", because {wx}", ", {adj.feel} as ever", ", half {adj.feel}, half {adj.feel}", ", not {adj.feel} at all", " and {idle.past}",
)


class Dialogue:
    """Makes paragraphs of direct speech between the two main people of the scene."""

    def __init__(self, scene: Scene):
        self.scene = scene
        self.exchanges = [(scene.compile(first), scene.compile_all(answers)) for first, answers in EXCHANGES]
        self.utterances = scene.compile_all(UTTERANCES)
        self.asides = scene.compile_all(ASIDES)
        self.narrated = scene.compile_all(NARRATED)

    def spoken(self, words: str, who: str | None, tag_chance: float = 0.75, plain: bool = False) -> str:
        """`words` in quotes, told with who says it (or bare); plain: with nothing about the manner."""
        scene = self.scene
        if who is None or not scene.chance(tag_chance):
            return f'"{words}"'
        end = words[-1]
        if end == "?":
            verb = "asked" if scene.chance(0.8) else "wanted to know"
        elif end == "!":
            verb = "cried" if scene.chance(0.5) else "called"
        else:
            verb = scene.pick(SAID)
        body = words[:-1] + "," if end == "." else words
        draw = 1.0 if plain else scene.random()
        manner = " " + scene.pick(scene.pools["adv.said"]) if draw < 0.25 else call(scene.pick(self.asides)) if draw < 0.65 else ""
        if scene.chance(0.25) and who in (scene.he, scene.qhe):
            return f'"{body}" {who} {verb}{manner}.'
        if scene.chance(0.5) and who not in (scene.he, scene.qhe) and " " not in verb:
            return f'"{body}" {verb} {who}{manner}.'
        first, dot, rest = words.partition(". ")
        if dot and end == "." and scene.chance(0.6):
            return f'"{first}," {who} {verb}{manner}. "{rest}"'
        return f'"{body}" {who} {verb}{manner}.'

    def block(self, turns: int) -> list[str]:
        """Paragraphs of talk: `turns` exchanges, each speaker in a paragraph of their own."""
        scene = self.scene
        lines: list[str] = []
        first, second = (scene.p, scene.q) if scene.chance(0.6) else (scene.q, scene.p)
        for turn in range(turns):
            opener, answers = scene.pick(self.exchanges)
            who = first if turn == 0 else (scene.he if first == scene.p else scene.qhe) if not scene.same and scene.chance(0.4) else first
            lines.append(self.spoken(scene.say(opener), who, 1.0 if turn == 0 else 0.6))
            reply = self.spoken(scene.choose(answers), second, 0.8 if turn == 0 else 0.5)
            if scene.chance(0.35):
                reply += " " + scene.choose(self.narrated)
            lines.append(reply)
            if scene.chance(0.3):
                lines.append(self.spoken(scene.choose(self.utterances), first, 0.8))
            if scene.chance(0.4):
                first, second = second, first
        return lines
