"""Code: small Python functions about the world's things, with docstrings and comments."""

from __future__ import annotations

from .grammar import finish
from .scene import Scene
from .verbs import plural

# templates separated by ---; {x} {y} nouns, {f} a verb, {attr} an attribute, {n} a number
FUNCTIONS = tuple(block + "\n" for block in '''def {f}_{x}({x}s{type}):
    """{Doc} {x}s."""
    total = 0
    for {x} in {x}s:
        total += {x}.{attr}
    return total
---
def count_{x}s(items, {y}):
    """Number of {x}s that have the given {y}."""
    # {comment}
    return sum(1 for item in items if item["{y}"] == {y})
---
def price_of({x}, {y}, rate={n}):
    """Price of a {x} and a {y}, in coins."""
    if {x} is None:
        raise ValueError("no {x}")
    return {x}.{attr} * rate + {y}.{attr}
---
class {X}:
    """A {x} with its {attr}. {comment}"""

    def __init__(self, {attr}, {y}=None):
        self.{attr} = {attr}
        self.{y} = {y}

    def is_{adj}(self):
        return self.{attr} > {n}
---
def {adj}_{x}s({x}s, limit={n}):
    """The {x}s whose {attr} is over the limit, largest first. {comment}"""
    found = [{x} for {x} in {x}s if {x}.{attr} > limit]
    return sorted(found, key=lambda {x}: {x}.{attr}, reverse=True)
---
def read_{x}s(path):
    """Read one {x} a line from a file; empty lines are skipped."""
    with open(path) as file:
        lines = [line.strip() for line in file]
    # {comment}
    return [line for line in lines if line]
---
{XS} = {{{pairs}}}


def {attr}_of({x}):
    """{Attr} of a {x}, or {n} if nothing is known. {comment}"""
    return {XS}.get({x}, {n})
---
def next_{x}(current, {x}s):
    """The {x} after the current one, beginning again at the end."""
    index = {x}s.index(current)
    return {x}s[(index + 1) % len({x}s)]
---
def test_{f}_{x}():
    {x}s = [{list}]
    assert len({x}s) == {k}
    assert {f}({x}s) == {sum}  # {comment}
---
def mean_{attr}({x}s):
    """Mean {attr}; {comment}"""
    if not {x}s:
        return None
    return sum({x}.{attr} for {x} in {x}s) / len({x}s)
---
def is_{adj}({x}, {y}):
    """True if the {x} may go with the {y}. {comment}"""
    if {x} == {y}:
        return False
    if {x}.{attr} < {n}:
        return True
    return {y} in {x}.{y}s
---
def group_by_{attr}({x}s):
    """A dict from each {attr} to its {x}s."""
    groups = {{}}
    for {x} in {x}s:
        groups.setdefault({x}.{attr}, []).append({x})
    return groups
---
while {x}s:
    {x} = {x}s.pop()
    if {x}.{attr} == {n}:
        break  # {comment}
    print({x}.{y})
---
def main():
    {x}s = read_{x}s("{x}s.txt")
    for number, {x} in enumerate({x}s, {n}):
        print(f"{{number}}. {{{x}}}")
    # {comment}


if __name__ == "__main__":
    main()'''.split("\n---\n"))
COMMENTS = ("{folk.cap+} ask for this on {weekday}s.", "Zero means that {wxnow}.", "See the notes of {year.old}.", "This is slow, but {wxnow}.",
    "Do not change this before the {event}.", "Measured in {units}.", "The {trade} wants it so.", "Fixed after the {trouble}.",
    "Used by the {building} in {here}.", "Nobody knows why.", "Too {adj.thing} to throw away.", "In {here} it is always {n2}.")
ATTRS = ("price", "weight", "age", "height", "length", "width", "count", "colour", "cost", "depth", "speed", "year", "owner", "number")
VERBS = ("total", "sum", "count", "weigh", "measure", "collect", "check", "add")


class Code:
    def __init__(self, scene: Scene):
        self.scene = scene
        self.comments = scene.compile_all([c.replace("{folk.cap+}", "{group.cap}") for c in COMMENTS])
        pools = scene.pools
        self.nouns = tuple(word for name in ("thing.small", "thing.big", "crop", "tool", "pet", "vehicle", "container", "tree", "wild",
            "trade") for word in pools[name]
                           if " " not in word and "-" not in word and plural(word) == word + "s")
        self.adjectives = tuple(word for word in pools["adj.thing"] if "-" not in word)

    def function(self) -> str:
        scene = self.scene
        x, y = scene.sample(self.nouns, 2)
        attr, verb = scene.pick(ATTRS), scene.pick(VERBS)
        names = scene.sample(self.nouns, 3)
        numbers = [scene.number(1, 30) for _ in names]
        comment = finish(scene.choose(self.comments))
        return scene.pick(FUNCTIONS).format(
            x=x, y=y, X=x.capitalize(), XS=x.upper() + "S", attr=attr, Attr=attr.capitalize(), f=verb, n=scene.number(1, 60), comment=comment,
                adj=scene.pick(self.adjectives),
            type=scene.pick(("", "", ": list")), Doc=scene.pick(("Total of all", "Sum over the", "Add up the", "What we have in")), k=len(numbers),
                sum=sum(numbers),
            pairs=", ".join(f'"{name}": {number}' for name, number in zip(names, numbers, strict=True)), list=", ".join(map(str, numbers)))

    def module(self) -> list[str]:
        scene = self.scene
        parts = [self.function() for _ in range(scene.number(1, 3))]
        if scene.chance(0.4):
            parts.insert(0, f'"""{finish(scene.choose(self.comments))}"""\n')
        return ["\n\n".join(parts).rstrip("\n")]
