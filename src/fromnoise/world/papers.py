"""Papers: short dry reports with numbers, and records of societies."""

from __future__ import annotations

from .grammar import call, finish
from .scene import Scene

TITLES = (
    "On {quantity0} near {here}", "{quantity0.cap} at {here}, {year}", "Notes on {quantity0}", "A survey of {quantity0}",
    "{quantity0.cap}: a comparison of {here} and {there}", "{quantity0.cap} in {season2}", "Measuring {quantity0}: methods and errors",
    "What {quantity0} tells us",
    "Does {material} change {quantity0}?", "{quantity0.cap} in {small} districts", "{quantity0.cap}, {month} to {month}", "A second look at {quantity0}",
    "The {sky} and {quantity0}",
)
ABSTRACT = (
    "We measured {quantity0} at {small} places near {here} over {small} {unit2b}.", "This report gives {quantity0} for the years {year} and after.",
    "It is often said that {quantity0} depends on the {quantity1}; we tested it.", "{quantity0.cap} was compared in {here} and {there}.",
    "The question is an old one: why is {quantity0} higher in {season2b}?",
    "We asked {n10} households about {quantity0}.", "Little is known about {quantity0} in {here}.",
    "We repeat the work of {name} ({year.old}) with better tools.", "It has been claimed by {name} that {quantity0} never changes.",
    "Since {year}, {quantity0} has been written down every {weekday} by {a.folk}.",
)
METHODS = (
    "All {unit1} were weighed {small} times on the scales of the {building}.", "Readings were taken at {n2} in the morning and written in a~{paper}.",
    "Half of the plots were covered with {material}; the other half were not.", "A~{thing.small} and {small} {container+} were used.",
    "The order was drawn by lot.", "The helpers did not know which was which.",
    "We left out {small} readings taken while {wx}.", "Errors are about {n2} in a hundred.",
    "Distances were paced and then checked with a rope of {n10} feet.", "The {ptrade} of {here} made the instruments.",
    "Samples were kept in {material} at {n2} degrees.", "{a.folk.cap} read the numbers aloud, and {a.folk} wrote them down.",
    "Nothing was measured on {weekday0}s, when the {building} was closed.",
)
RESULTS = (
    "The mean was {n10} {units0}, against {n10} {units0} in {there}.", "It rose from {n10} to {n100} {units0} between {month} and {month}.",
    "The largest value, {n100} {units0}, was found {where}.", "There was no difference between {material2}.",
    "Places with {material} gave {n2}.{n2} {units0} more.", "It was higher in {season2b} in {small} of {n10} cases.",
    "In {n10} of {n100} cases nothing happened.", "Table {n2} gives the numbers.", "The figures for {month} are missing, because {wx}.",
    "Below {n10} {units0} nothing could be seen.", "Twice the {quantity1} did not give twice the result.", "{there} had {n10} {units0}, {here} only {n2}.",
    "The smallest value was {n2} {units0}.", "Of {n100} {unit1}, {n10} were {adj.thing}.",
)
ENDINGS = (
    "We conclude {that4}.", "The cause is not clear.", "More readings are needed.", "It may be that the {sky} matters more than the {quantity1}.",
    "In short: {quantity0} depends on the {quantity1}.", "In short: {material} helps, {quantity1} does not.",
    "Our thanks go to {name}, who lent the {thing.big}.", "This agrees with {name} ({year.old}).", "This does not agree with what is taught.",
    "The work was paid for by the council of {here}.",
    "To sum up, {quantity0} was higher than expected, and we do not know why.", "In short: nothing was found, which is also a result.",
)
MINUTES = (
    "{name} was in the chair; {n10} members were present.", "The minutes of {month} were read and approved.",
    "{name} spoke about {topic} for {n10} minutes.", "A letter from {there} was read; it said {that2}.", "It was asked {wh2}.",
    "The sum of {n100} coins was set aside for {a.thing}.", "{name} objected.", "{name} proposed to {any.base}; the motion was {carried} by {n10} to {n2}.",
    "The treasurer reported {n100} coins in hand and {n10} owing.", "The secretary was asked to write to {a.folk}.",
    "The next meeting is on the {ordinal} {weekday} of {month}.", "The {item} has still not been found.", "{drink.cap} was served.",
)
QUANTITIES = (  # what is measured, and in which units
    ("the weight of the {crop}", ("pounds", "sacks")), ("the height of the {river}", ("feet", "inches")), ("the number of {wild+}", ("animals", "pairs")),
     ("the price of {goods}", ("coins", "shillings")), ("the depth of the snow", ("inches", "feet")),
    ("the length of {tool+}", ("inches", "feet")), ("the milk of {n10} cows", ("buckets", "jugs")), ("the heat of a~{thing.big}", ("degrees",)),
     ("the yield of {veg}", ("baskets", "pounds", "sacks")), ("the speed of the {vehicle}", ("miles", "miles an hour")), ("the number of letters sent",
     ("letters", "bags")),
    ("the use of {spice}", ("spoonfuls", "ounces")), ("the loss of {goods}", ("pounds", "coins")), ("the age of {tree+}", ("years", "rings")),
     ("the noise of the {vehicle}", ("degrees",)), ("the sleep of {folk+}", ("hours",)), ("the weight of {fruit}", ("ounces", "pounds")),
)
PHRASES = {
    "that4": ("that {quantity0} depends on the {quantity1}", "that {material} is to be preferred", "that the old rule holds in {season} only",
    "that {quantity0} tells us little about the weather", "that nothing can be said before {month}", "that {there} has better soil than {here}"),
    "season2b": ("summer than in winter", "winter than in summer", "spring than in autumn", "autumn than in spring", "summer than in autumn",
    "winter than in spring"),
    "quantity1": ("rain", "manure", "light", "water", "seed", "work"),
    "carried": ("carried", "lost", "passed", "put off"),
}


class Papers:
    def __init__(self, scene: Scene):
        self.scene = scene
        for name in PHRASES:
            scene.slots[name] = scene._late(name)
        for name, templates in PHRASES.items():
            scene.add_phrases(name, templates)
        self.quantities = [(scene.compile(quantity), units) for quantity, units in QUANTITIES]
        self.titles, self.minutes_lines = scene.compile_all(TITLES), scene.compile_all(MINUTES)
        self.parts = [(name, scene.compile_all(lines)) for name, lines in (("Abstract", ABSTRACT), ("Methods", METHODS), ("Results", RESULTS),
            ("Conclusion", ENDINGS))]

    def report(self) -> list[str]:
        scene = self.scene
        scene.new_people()
        scene.third_known = True
        quantity, units = scene.pick(self.quantities)
        scene.quantity0, scene.units0 = finish(call(quantity)), scene.pick(units)
        headings = scene.chance(0.5)
        lines = [finish(scene.choose(self.titles))]
        if scene.chance(0.5):
            lines.append(f"By {scene.full_name()}" + (f" and {scene.full_name()}" if scene.chance(0.4) else ""))
        for name, options in self.parts:
            text = scene.paragraph([scene.say(part) for part in scene.sample(options, scene.number(1, 3))], "report" if name in ("Methods",
                "Results") else "paper")
            lines.append(f"{name}. {text}" if headings else text)
        if scene.chance(0.25):
            lines[-1:-1] = self.table()
        return lines

    def table(self) -> list[str]:
        scene = self.scene
        rows = scene.sample(scene.pools["crop"] if scene.chance(0.5) else scene.pools["town"], scene.number(3, 5))
        low = scene.number(5, 40)
        values = [low + scene.number(0, 60) for _ in rows]
        lines = [f"{row}: {value}" for row, value in zip(rows, values, strict=True)]
        if scene.chance(0.7):
            lines.append(f"Sum: {' + '.join(map(str, values))} = {sum(values)}")
        most = values.index(max(values))
        if scene.chance(0.5) and values.count(max(values)) == 1:
            lines.append(f"The largest is {rows[most]} with {values[most]}.")
        return lines

    def minutes(self) -> list[str]:
        scene = self.scene
        scene.new_people()
        scene.third_known = True
        society = scene.pick(("the beekeepers' society", "the town council", "the reading club", "the society for old bridges", "the choir",
            "the ferry company", "the school board", "the garden club"))
        head = f"Minutes of {society} of {scene.here}, {scene.number(1, 28)} {scene.pick(scene.pools['month'])}"
        first, *others = self.minutes_lines
        return [head, scene.paragraph([scene.say(first), *(scene.say(part) for part in scene.sample(others, scene.number(3, 7)))], "news")]
