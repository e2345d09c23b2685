"""English verb forms: regular rules and the irregular verbs that the world uses."""

from __future__ import annotations

_IRREGULAR_TABLE = """
be/was/been bear/bore/borne beat/beat/beaten become/became/become begin/began/begun bend/bent/bent bet/bet/bet bind/bound/bound
bite/bit/bitten blow/blew/blown break/broke/broken bring/brought/brought build/built/built burn/burnt/burnt buy/bought/bought
catch/caught/caught choose/chose/chosen come/came/come cost/cost/cost creep/crept/crept cut/cut/cut deal/dealt/dealt dig/dug/dug
do/did/done draw/drew/drawn drink/drank/drunk drive/drove/driven eat/ate/eaten fall/fell/fallen feed/fed/fed feel/felt/felt
fight/fought/fought find/found/found fly/flew/flown forget/forgot/forgotten forgive/forgave/forgiven freeze/froze/frozen get/got/got
give/gave/given go/went/gone grind/ground/ground grow/grew/grown hang/hung/hung have/had/had hear/heard/heard hide/hid/hidden
hit/hit/hit hold/held/held hurt/hurt/hurt keep/kept/kept kneel/knelt/knelt know/knew/known lay/laid/laid lead/led/led leave/left/left learn/learnt/learnt
lend/lent/lent let/let/let lie/lay/lain light/lit/lit lose/lost/lost make/made/made mean/meant/meant meet/met/met mow/mowed/mown
pay/paid/paid put/put/put read/read/read ride/rode/ridden ring/rang/rung rise/rose/risen run/ran/run saw/sawed/sawn say/said/said
see/saw/seen seek/sought/sought sell/sold/sold send/sent/sent set/set/set sew/sewed/sewn shake/shook/shaken shear/sheared/shorn
shine/shone/shone shoot/shot/shot show/showed/shown shut/shut/shut sing/sang/sung sink/sank/sunk sit/sat/sat sleep/slept/slept
sow/sowed/sown speak/spoke/spoken spend/spent/spent spin/spun/spun split/split/split spread/spread/spread stand/stood/stood
steal/stole/stolen stick/stuck/stuck sting/stung/stung strike/struck/struck sweep/swept/swept swim/swam/swum swing/swung/swung
take/took/taken teach/taught/taught tear/tore/torn tell/told/told think/thought/thought throw/threw/thrown understand/understood/understood
wake/woke/woken wear/wore/worn weave/wove/woven weep/wept/wept win/won/won wind/wound/wound write/wrote/written
overhear/overheard/overheard undo/undid/undone rebuild/rebuilt/rebuilt mistake/mistook/mistaken
"""
IRREGULAR = {base: (past, pp) for base, past, pp in (entry.split("/") for entry in _IRREGULAR_TABLE.split())}
_DOUBLING = frozenset("""
beg chat chop clap dip drag drip drop drum flap grab grip hop hug hum jog knit knot mop nap nod pat pin plan plot plug pop
prop rub scrub shop shrug sip skip slip snap stir stop strap strip swap tap trim trot tug wag wrap zip trap tip tan thin rob spot
chip pet skim slam stun whip wed plod scan ship strum fit pot bag bat jot rot
quarrel travel level label signal run sit put cut dig get let shut swim win spin split set hit bet forget hum
""".split())


def conjugate(verb: str) -> tuple[str, str, str, str, str]:
    """Base form -> (base, third person, past, past participle, -ing form)."""
    if verb == "be":
        return ("be", "is", "was", "been", "being")
    consonant_y = verb[-1] == "y" and verb[-2] not in "aeiou"
    if verb == "have":
        third = "has"
    elif consonant_y:
        third = verb[:-1] + "ies"
    elif verb[-1] in "sxzo" or verb[-2:] in ("ch", "sh"):
        third = verb + "es"
    else:
        third = verb + "s"
    doubled = verb + verb[-1] if verb in _DOUBLING else verb
    if verb.endswith("ie"):
        ing = verb[:-2] + "ying"
    elif verb[-1] == "e" and verb[-2:] not in ("ee", "ye", "oe"):
        ing = verb[:-1] + "ing"
    else:
        ing = doubled + "ing"
    if verb in IRREGULAR:
        past, participle = IRREGULAR[verb]
    else:
        past = verb[:-1] + "ied" if consonant_y else verb + "d" if verb[-1] == "e" else doubled + "ed"
        participle = past
    return (verb, third, past, participle, ing)


def plural(noun: str) -> str:
    """Plural of a noun or noun phrase whose last word is the noun ("loaf of bread" -> "loaves of bread")."""
    head, of, tail = noun.partition(" of ")
    if of:
        return plural(head) + of + tail
    irregular = {"man": "men", "woman": "women", "child": "children", "foot": "feet", "tooth": "teeth", "goose": "geese", "mouse": "mice",
                 "sheep": "sheep", "fish": "fish", "trout": "trout", "loaf": "loaves", "shelf": "shelves", "knife": "knives", "wife": "wives",
                 "thief": "thieves", "calf": "calves", "leaf": "leaves", "wolf": "wolves", "half": "halves", "scarf": "scarves", "ox": "oxen"}
    stem, _, last = noun.rpartition(" ")
    lead = stem + " " if stem else ""
    if last in irregular:
        return lead + irregular[last]
    for ending, many in (("man", "men"), ("woman", "women")):
        if last.endswith(ending):
            return lead + last[:-len(ending)] + many
    if last[-1] == "y" and last[-2] not in "aeiou":
        return lead + last[:-1] + "ies"
    return lead + last + ("es" if last[-1] in "sxz" or last[-2:] in ("ch", "sh") or last in ("potato", "tomato", "hero") else "s")
