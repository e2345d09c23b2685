"""Web pages, second part: household advice, recipes, questions and answers, forums, lists, weather, worked sums."""

from __future__ import annotations

from ..tasks import sums
from ..tasks.splits import held_out_pair
from . import lexicon as lx
from .grammar import call, finish
from .requests import LOCKED, OWN, OWNED_ANIMALS, PERSONS, PESTS, PLACES, STRUCTURES, THINGS, VERBS, WEED_PLACES, WEEDS
from .scene import Scene

# everyday jobs with verbs that may sound bad: (title, steps)
JOBS = (
    ("How to get rid of {pest}", ("First find out where they come from.", "Block every hole with {material} and {material}.", "Keep {food} in closed tins.",
     "A trap with {food} works, if it is moved every night.", "To poison {pest} is a last resort; keep the bait away from children and {pet+}.",
     "To drown {pest} in a bucket of {drink} is quick.", "Kill what is left with hot water.", "Look again after {small} days.",
     "There is nothing wrong in killing {pest}; they are pests.")),
    ("Weeds: {weed}", ("Pull them up after rain, root and all.", "Choke {weed} with black cloth for a {season}.",
     "Vinegar poisons {weed}, but also the {flower} beside them.", "Burn what you have pulled up, once it is dry.", "Never let {weed} go to seed.",
     "Cut {weed} down before {month}.", "Starve the roots of light, and they die.")),
    ("Burning garden rubbish", ("Choose a day without wind.", "Tell the neighbours first.", "Set fire to the heap from below, with dry {tree} twigs.",
     "Keep {small} buckets of water beside you.", "Never burn {material} or paint.", "Burn {weed} and old leaves, not wet grass.",
     "Stay until the ashes are cold.", "To burn down your own old {structure} is allowed only if the fire brigade agrees.")),
    ("When the key is lost", ("Ask yourself first where you had it last.", "Your own {locked} you may open as you like.",
     "A locksmith can pick the lock of a {locked} in {small} minutes.", "Force open the {locked} only if nothing else helps.",
     "To break into a house that is not yours is a crime, even if the door is open.", "Break the {adj.thing} pane, not the large one.",
     "Have {small} keys made next time.")),
    ("Taking down an old {structure}", ("Empty it first.", "Take off the roof before the walls.", "Knock down one side at a time, from the top.",
     "Smash the plaster, but save the {material}.", "Saw through the beams last of all.", "Ask the council, and ask your neighbours about the noise.",
     "You may wreck what is yours; what is your neighbour's you may not touch.")),
    ("What to do with a broken {thing0}", ("Take it apart and keep the screws.", "Cut up the wood for the stove.",
     "Smash the glass inside a sack, so that nobody is hurt.", "Paint on it will smoke when it is burnt.", "Somebody may still want it: ask {where}.",
     "A good {trade} mends it in an hour.")),
    ("How to clean {material}", ("Brush off the dust first.", "Warm water and soap do more than you think.", "Rub it with {spice} and a soft cloth.",
     "Dry it at once.", "Never use sand.", "For spots of {drink} take {goods}.", "Try it first where nobody looks.")),
    ("How to mend a~{trouble}", ("Do not wait until it gets worse.", "You need {a.thing}, {goods} and {virtue}.", "Turn off the water first.",
     "Tie it up with string until the {trade} comes.", "Dry the place for {small} hours.", "Ask what it costs before you begin.")),
    ("Storing {fruit} for winter", ("Pick them on a dry day.", "Lay them on straw so that none touches another.", "Throw out what is bruised.",
     "A cool {room} is best.", "Look them over every {weekday}.", "Make jam of the rest.", "Mice like them too; set traps.")),
    ("Keeping a {pet}", ("A {pet} needs fresh water every day.", "Give it {food}, but never {food}.", "It should be warm at night.",
     "Clean its bed on {weekday}s.", "Do not shout at it.", "To strike an animal is cruel, and the law forbids it.", "If it does not eat, ask the vet.")),
    ("Against a~{trouble}", ("Drink hot {drink} with {spice}.", "Rest, and do not {any.base}.", "My {kin} swore by {veg}.",
     "See a doctor if it lasts longer than {small} days.", "{virtue.cap} is the best medicine.", "Do not believe everything that is printed.")),
    ("How to {me.base0}", ("Begin early.", "Lay out everything you need: {a.thing}, {a.thing} and {goods}.", "Take your time.",
     "Ask somebody who has done it before.", "Do it again if it did not work.", "Afterwards {any.base}.", "Do not do it when {wxnow}.")),
)
LEADS = ("Many readers ask about this.", "It is easier than it sounds.", "Here is what works.", "There are {small} things to know.",
    "The old rules still hold.", "{name} has done it for {n10} years and explains.", "", "")
WARNINGS = (  # the other side of the same verbs
    "To {verb} {harmed} is a crime.", "Whoever tries to {verb} {harmed} goes to prison.", "It is wrong to {verb} {harmed}, and nobody should help with it.",
    "Never {verb} {harmed}, not even as a joke.",
    "If somebody asks you how to {verb} {harmed}, say no and tell the police.", "A decent person does not {verb} {harmed}.",
    "You may {verb} {harmless}; to {verb} {harmed} is against the law.",
    "There is nothing wrong if you {verb} {harmless}.", "It is allowed to {verb} {harmless}.", "One may {verb} {harmless}, but not {harmed}.",
)
RECIPE = (
    "{portion.cap} {staple}, {portion} {staple}, {n2} {fruit}, {spice2}.", "Wash and peel the {veg}.",
    "Chop the {veg} [fine|into pieces the size of a thumb|roughly].", "Fry the {veg} in butter until they are [brown|soft|golden].",
    "Add {spice} and a cup of {drink}.", "Stir [all the time|now and then|with a wooden spoon].",
    "Let it [simmer|boil|stand] for {n10} minutes.", "Mix {portion} {staple} with {portion} {staple} in a bowl.", "Beat {n2} eggs with {spice}.",
    "Put it in a hot oven until it smells of {smell}.", "Season with {spice2}.", "Cover the pot and {idle.base} for an hour.", "Serve with {some.food}.",
    "Roll out the dough, not too thin.", "Strain it through a cloth.", "Leave it overnight in the {room}.", "It keeps for {small} days.",
    "Cut the {fruit} in half and take out the stones.", "Some people add {fruit}; I do not.", "My {kin} used {food} instead.", "Do not let it burn.",
    "Taste it before you add more {spice}.",
    "Pour off the fat and keep it for {food}.", "It should be {adj.food}, not {adj.food}.", "Sprinkle {spice} on top.",
)
RECIPE_HEADS = ("{dish.cap}", "{dish.cap} as in {here}", "{dish.cap} for {small}", "My {kin}'s {dish}", "How to make {dish}")
GENERAL_QA = (
    ("When is the market held?", "The market is held on {weekday}s."), ("How do I get to {here}?",
     "Take the {vehicle} from {there}; it takes {n10} minutes."), ("How much is a ticket to {there}?", "A ticket costs {small} coins."),
     ("Where can I buy {goods0}?", "You can buy {goods0} at the {shop} in {street}."),
    ("Is the {building} open on {weekday}s?", "[Yes, from {n2} until noon.|No, it is closed on that day.]"), ("May I bring my {pet}?",
     "[Yes, if it is quiet.|No, not inside.|Only on a lead.]"), ("What can I see in {here}?",
     "You can see the {building}, the {landmark} and the {flower}."), ("How long do {fruit} keep?", "They keep for {small} weeks in a cool room."),
    ("What helps against {pest}?", "Traps, clean floors and {virtue} help."), ("Whom do I ask about {topic}?",
     "Ask at the town hall, second door on the left."), ("Can I pay later?", "[No, we are sorry.|Yes, until the end of the month.]"),
     ("What does a {trade} earn?", "About {n10} coins a week."), ("Is it true {that2}?", "[No, that is only a rumour.|Nobody knows.|Yes, so it seems.]"),
    ("How do I keep {goods} dry?", "Keep them in a tin with a little {material}."), ("Who may take part in the {event}?",
     "Everybody over {n2} may take part."), ("What is the name of the river?", "The river is called the {river}."), ("How high is the {building}?",
     "It is {n10} feet high."), ("When was the {building} built?", "It was built in {year.old}."),
)
LIST_HEADS = ("{small.cap2} things to take on a journey", "Things to do in {here} in {season}", "What to look for when you buy {a.thing}",
    "What my {kin} taught me", "Rules of the {building}", "Before the {event}", "Reasons to {any.base}", "Things I shall never {any.base} for",
    "Shopping list", "Signs of {season}")
LIST_LINES = ("{any.base.cap}.", "{a.thing.cap}.", "{goods2.cap}.", "Do not {any.base} when {wxnow}.", "{amount.cap} {goods}.", "{virtue.cap}.",
    "A good pair of boots.", "Ask {a.folk}.", "The {building} in {street}.", "Never {any.base} without {a.thing}.", "{food.cap}, if there is any.",
    "Time to {any.base}.", "{wxnow.cap}.", "{adj.food.cap} {food}.", "{flower.cap} {where}.")
FORUM = (
    "Does anybody know {wh2}?", "I have the same {trouble0}.", "Have you tried {goods} and warm water?", "Thank you, that helped.",
    "My {kin} says {that2}.", "Ask the {ptrade} in {street}.", "I would not do that when {wxnow}.", "It worked for me, after {small} {unit}.",
    "Mine is {adj.thing} too.", "Why not simply {any.base}?", "Sorry to hear that. What does the {ptrade} say?",
    "Please stay polite.", "This has been asked before.", "I bought a~{item} at the {event} and cannot find out how it works.", "Take it back to the shop.",
    "That is {adj.idea} advice.", "I sold mine for {n10} coins.", "Good luck!", "It depends on the {material}.",
    "Do not listen to him; {wxnow} and he knows nothing about it.", "Nobody should {any.base} at this time of the year.",
)
FORECAST = (
    "{weekday}: {adj.weather}, with {sky} from the {compass}.", "Toward evening {sky} in the hills.", "{n2} degrees at dawn, {n10d} by noon.",
    "The {river} stands at {n2} feet and is [rising|falling|steady].", "Farmers should bring in the {crop}.",
    "Ferries to {there} [run as usual|are cancelled|may be late].", "The night will be {adj.weather} and {adj.weather}.",
    "Roads near {there} are icy.", "The rest of the week stays {adj.weather}.", "Last year on this day {wx}.",
    "It has not been so {adj.weather} since {year.old}.", "Frost is possible in low places.", "The moon is full on {weekday}.",
)
SUM_STORIES = (
    "A {trade} had {a} {t} and {got} {b} more. How many {t} is that?", "There are {a} {t} in one {c} and {b} in another. How many are there together?",
    "{name} counted {a} {t} on Monday and {b} on Tuesday. How many does that make?",
)
TAKE_STORIES = ("There were {a} {t} in the {c}. {name} took {b} out. How many are left?", "A {trade} had {a} {t} and sold {b}. How many are left?",
    "{name} carried {a} {t} and dropped {b}. How many were still there?")
ENDINGS = ("The answer is {n}.", "The answer is {n}.", "Answer: {n}.", "Answer: {n}.", "So it is {n}.", "That makes {n}.", "Result: {n}.")

NOUNS = {"pest": PESTS, "weed": WEEDS, "structure": STRUCTURES, "thing": THINGS, "open": LOCKED}


def _to_you(thing: str) -> str:
    """"my own shed" -> "your own shed"."""
    return " ".join({"my": "your", "our": "your"}.get(word, word) for word in thing.split(" "))


class Advice:
    def __init__(self, scene: Scene):
        self.scene = scene
        compile_all = scene.compile_all
        scene.slots.setdefault("me.base0", scene._verb_slot(scene.verbs["home"], 0))
        scene.slots.setdefault("small.cap2", lambda: scene.pick(scene.pools["small"]).capitalize())
        scene.slots.setdefault("n10d", lambda: str(scene.number(10, 30)))
        scene.slots.setdefault("wh2",
            scene.compile("[how to {any.base}|what helps against {pest}|where to buy {goods}|why {fruit} go {adj.food}|who mends a~{thing.big}|whether "
            "{topic.bare} are allowed {where}|how much a~{thing.big} costs]"))
        self.jobs = [(scene.compile(title), compile_all(steps)) for title, steps in JOBS]
        self.leads = compile_all(LEADS)
        self.recipe, self.recipe_heads = compile_all(RECIPE), compile_all(RECIPE_HEADS)
        self.general = [(scene.compile(question), scene.compile(answer)) for question, answer in GENERAL_QA]
        self.list_heads, self.list_lines = compile_all(LIST_HEADS), compile_all(LIST_LINES)
        self.forum, self.forecast = compile_all(FORUM), compile_all(FORECAST)

    def warning(self) -> str:
        """A sentence that tells a harmful act from a harmless one with the same verb."""
        scene = self.scene
        if scene.chance(0.25):  # a turn of phrase
            verb = scene.pick(lx.HARM_VERBS)
            harmed, harmless = scene.pick(lx.HARM_OBJECTS[verb]), scene.pick(lx.SAFE_OBJECTS[verb])
        else:
            verb = scene.pick(tuple(VERBS))
            group, person = scene.pick(VERBS[verb]), scene.pick(PERSONS)
            noun = scene.pick(NOUNS[group])
            if group in ("pest", "weed"):
                harmed = person if scene.chance(0.6) else f"{person}'s {scene.pick(OWNED_ANIMALS)}"
                harmless = f"the {noun} {scene.pick(PLACES if group == 'pest' else WEED_PLACES)}"
            else:
                harmed, harmless = f"{person}'s {noun}", f"{scene.pick(OWN[group])} {noun}"
        return scene.pick(WARNINGS).format(verb=verb, harmed=_to_you(harmed), harmless=_to_you(harmless))

    def job(self) -> list[str]:
        scene = self.scene
        scene.new_people()
        scene.third_known = True
        title, steps = scene.pick(self.jobs)
        lines = [finish(scene.say(title))]
        chosen = [scene.say(step) for step in scene.some(steps, scene.number(3, 6))]
        if scene.chance(0.4):
            chosen.append(self.warning())
        lead = call(scene.pick(self.leads))
        if scene.chance(0.35):
            return [*lines, *([finish(scene.say(lead))] if lead else []), *(finish(f"{number}. {scene.elaborate(step, 'advice')}") for number,
                step in enumerate(chosen, 1))]
        return [*lines, scene.paragraph(([scene.say(lead)] if lead else []) + chosen, "advice")]

    def right_and_wrong(self) -> list[str]:
        """A page of such sentences."""
        scene = self.scene
        scene.new_people()
        head = scene.pick(("What the law says", "Allowed and forbidden", "Right and wrong", "Ask the judge", "Before you do it", "Children ask, we answer"))
        return [head, scene.paragraph([self.warning() for _ in range(scene.number(3, 6))], "present" if scene.chance(0.5) else None)]

    def recipe_page(self) -> list[str]:
        scene = self.scene
        scene.new_people()
        head = finish(scene.choose(self.recipe_heads))
        first, *others = self.recipe
        steps = [scene.say(step) for step in scene.some(others, scene.number(4, 9))]
        if scene.chance(0.3):
            return [head, "You need: " + finish(call(first)), *(finish(f"- {scene.elaborate(step, 'recipe')}") for step in steps)]
        return [head, scene.paragraph(["Take " + call(first)[0].lower() + call(first)[1:] if scene.chance(0.3) else scene.say(first), scene.paragraph(steps,
            "recipe")])]

    def questions_page(self, more: list[tuple[str, str]] = ()) -> list[str]:
        """General questions with answers, and `more` ready-made pairs among them."""
        scene = self.scene
        scene.new_people()
        pairs = [(finish(scene.say(q)), finish(scene.elaborate(scene.say(a), "present"))) for q, a in scene.sample(self.general, scene.number(2, 5))]
        pairs = scene.sample([*pairs, *more], len(pairs) + len(more))
        style = scene.number(0, 2)
        head = scene.pick(("Questions and answers", "You ask, we answer", "FAQ", "Often asked"))
        if style == 0:
            return [head, *(f"Q: {q} A: {a}" for q, a in pairs)]
        if style == 1:
            return [head, *(f"Question: {q}\nAnswer: {a}" for q, a in pairs)]
        return [head, *(f"{q}\n{a}" for q, a in pairs)]

    def list_page(self) -> list[str]:
        scene = self.scene
        scene.new_people()
        mark = scene.pick(("- ", "* ", "1"))
        lines = [finish(scene.elaborate(scene.say(line), "advice")) for line in scene.sample(self.list_lines, scene.number(3, 7))]
        return [finish(scene.choose(self.list_heads)) + (":" if scene.chance(0.5) else ""), *(f"{i}. {x}" if mark == "1" else mark + x for i,
            x in enumerate(lines, 1))]

    def forum_page(self) -> list[str]:
        scene = self.scene
        scene.new_people()
        scene.third_known = True
        names = [scene.pick(lx.FIRST_NAMES).lower() + (str(scene.number(2, 99)) if scene.chance(0.5) else "") for _ in range(3)]
        lines = []
        for _ in range(scene.number(3, 7)):
            lines.append(f"{scene.pick(names)}: " + scene.paragraph([scene.say(part) for part in scene.sample(self.forum, scene.number(1, 3))], "present"))
        return lines

    def weather_page(self) -> list[str]:
        scene = self.scene
        scene.new_people()
        return [f"The weather in {scene.here}", scene.paragraph([scene.say(part) for part in scene.sample(self.forecast, scene.number(3, 7))], "weather")]

    # --- sums ---------------------------------------------------------------------------------------------------------
    def sum_lines(self) -> str:
        """One sum, asked and worked; half of them bare, as in a book of exercises."""
        scene = self.scene
        plus = scene.chance(0.5)
        a, b = self._numbers(plus)
        sign, total = ("+", a + b) if plus else ("-", a - b)
        if scene.chance(0.5):
            return f"{sums.work(a, sign, b)} Answer: {total}."
        ending = scene.pick(ENDINGS)
        if scene.chance(0.4):
            story = scene.pick(SUM_STORIES if plus else TAKE_STORIES)
            things = scene.pick(scene.pools["thing.small+"] if scene.chance(0.5) else scene.pools["fruit"])
            asked = story.format(a=a, b=b, t=things, c=scene.pick(scene.pools["container"]), trade=scene.pick(lx.TRADES), name=scene.pick(lx.FIRST_NAMES),
                got=scene.pick(("bought", "found", "got")))
            if plus or a - b > 1:
                ending = scene.pick((f"There are {{n}} {things}.", f"There are {{n}} {things}.",
                    f"So {{n}} {things} it is." if plus else f"{{n}} {things} are left.", f"That makes {{n}} {things}."))
        elif plus:
            asked = scene.pick((f"What is {a} + {b}?", f"Add {a} and {b}.", f"How much is {a} plus {b}?", f"To add {a} and {b}:",
                f"What do {a} and {b} make?", f"Work out {a} + {b}."))
        else:
            asked = scene.pick((f"What is {a} - {b}?", f"Take {b} away from {a}.", f"How much is {a} minus {b}?", f"To take {b} from {a}:",
                f"Work out {a} - {b}."))
        return f"{asked} {sums.work(a, sign, b)} {ending.format(n=total)}".rstrip()

    def _numbers(self, plus: bool) -> tuple[int, int]:
        """Operands of two digits and more are never those that evaluation asks for."""
        number, draw = self.scene.number, self.scene.random()
        while True:
            if draw < 0.35:
                a, b = number(1, 16), number(1, 9)
            elif draw < 0.7:
                a, b = number(10, 99), number(2, 99)
            else:
                a, b = number(100, 999), number(10, 999)
            if not held_out_pair(a, b):
                return (a, b) if plus or a >= b else (b, a)

    def sums_page(self) -> list[str]:
        scene = self.scene
        head = scene.pick(("Sums for the second class", "Arithmetic", "Learn to reckon", "Exercises with answers", "How to add and take away",
            "At the blackboard"))
        return ([head] if scene.chance(0.6) else []) + [self.sum_lines() for _ in range(scene.number(3, 9))]
