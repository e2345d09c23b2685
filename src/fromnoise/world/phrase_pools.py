"""Phrases smaller than a sentence: noun phrases, adverbials and clauses that any text may use.

`{s}` is the main person or the pronoun, `{t}` the second one, `{third}` a third one of the same text, `{do.past}` a verb
phrase of the text's theme for the main person, `{do2.*}` for the second, `{do3.*}` for several people, `{any.*}` one
for people in the background. `{wx}` follows the weather of the text (WEATHER).
"""

from __future__ import annotations

NOUN_PHRASES: dict[str, tuple[str, ...]] = {
    "joke": ("joke", "silly joke", "story about a bishop", "remark about the mayor", "riddle", "poem about a goat", "picture in the newspaper"),
    "hat": ("hat", "wet sponge", "cake", "wasp", "cat", "pair of spectacles", "basket of eggs"),
    "a.thing": ("a~{thing.small}", "a~{adj.thing} {thing.small}", "a~{adj.thing} {thing.big}", "the {item}", "the {item}", "the {item}", "a~{colour} {cloth}", "a~{container} of {fruit}"),
    "a.folk2": ("a~{adj.person} {folk} from {town}", "a~{folk} in a~{colour} {cloth}", "a~{folk} with a~{adj.thing} {thing.small}", "a~{trade} from {there}"),
    "a.paper": ("a~{paper}", "an old {paper}", "the {paper}", "a torn {paper}"),
    "a.wild": ("a~{wild}", "a~{adj.animal} {wild}", "two {wild+}"),
    "a.farm": ("a~{farm}", "a~{adj.animal} {farm}", "the neighbour's {farm}", "some {farm+}", "a~{farm} with a bell"),
    "a.kin": ("a~{kin}", "an elder {kin}", "a~{kin}", "the youngest {kin}"),
    "a.folk": ("{third}", "{third}", "{third}", "{third}", "a~{folk}", "a~{adj.person} {folk}", "a~{adj.person} {folk} from {town}", "a~{folk} in a~{colour} {cloth}", "a~{folk} on the way to the {event}",
               "one of the {folk+}", "a~{folk} who sold {goods}", "the {trade}", "the {trade} from {town}"),
    "a.trouble": ("a~{trouble}", "a~{adj.bad} {trouble}", "another {trouble}"),
    "some.food": ("{food}", "some {food}", "{adj.food} {food}", "{food} and {drink}", "a plate of {food}", "{food} with {spice}", "a little {adj.food} {food}"),
    "a.place": ("the {landmark}", "the {adj.place} {landmark}", "the {building}", "the {building} in {street}", "the {shop} in {street}", "the {landmark} behind the {building}"),
    "np": ("the {folk}", "{a.folk}", "{group}", "some of {group}", "{third}", "everybody", "nobody", "somebody in {street}", "one of {group}"),
}

ADVERBIALS: dict[str, tuple[str, ...]] = {
    "when": ("{time.past}", "{time.past}", "{time.past}", "in {month0}", "one {weekday} in {month0}", "one {season0} evening", "on the {ordinal} of {month0}", "{small} days later", "toward the end of {month0}",
             "at about {small} o'clock", "on {weekday0}", "the day after the {event}", "on the morning of the {event}", "not long before the {event}"),
    "where": ("{place}", "{place}", "{place}", "in {street}", "in front of the {building}", "not far from the {landmark}", "at the {shop}", "behind the {building}",
              "by the {landmark}", "outside the {shop}", "opposite the {building}", "on the road to {town}", "a mile from {here}", "under the {tree+}"),
    "tail": ("", "", "", "", "", "", " {when}", " {when}", " {adv.manner}", " without a word", " with great care", " {reason}", " in spite of {a.trouble}", " instead of going home", " for the {ordinal} time",
             " as if nothing had happened", " under a~{adj.weather} sky", ", and not for the first time", ", which took {span.len}", " while {wx}", " before anyone else was up", " with the help of {a.folk}",
             " and thought no more about it", " as well as {he} could", ", though nobody had asked for it", " and went to bed late", ", and that was that", " as {kin.his} had always done"),
    "kin.his": ("{his} mother", "{his} father", "{his} grandfather", "{his} aunt"),
    "front": ("{adv.sent}, ", "{adv.sent}, ", "{when}, ", "{when} ", "{when} ", "{adv.sent} ", "in spite of {a.trouble}, ", "without waiting for {a.folk}, ", "like most people in {here}, ",
              "after {small} {unit}, ", "thanks to {a.folk}, ", "instead of {talk.ing}, ", "while {wx}, ", "although {wx}, ", "because {wx}, ", "half asleep, ", "with the {item} under one arm, ",
              "out of {emotion2}, ", "from that day on ", "by the time {t} came back, ", "as soon as {wx}, ", "with the help of {a.folk}, ", "now that {wx}, ", "at the sight of {a.wild}, ", "at the sound of a~{thing.noise}, ",
              "against {adj.idea} advice, ", "as there was nothing else to do, ", "since {t} was not there, ", "to save time, ", "to please {t}, ", "before {t} could answer, ", "when {a.folk} had gone, "),
    "thing.noise": ("bell", "whistle", "cough", "knock", "bark", "footstep on the stairs", "distant horn", "breaking plate", "cart"),
    "span.len": ("an hour", "all day", "the rest of the week", "half the night", "less than a minute", "longer than planned", "some courage", "a fortnight", "until {weekday0}"),
    "unit": ("days", "hours", "weeks", "minutes", "miles", "attempts", "cups of tea", "sleepless nights", "rainy days"),
    "because": ("there was nothing else to do", "{t} had asked for it", "it had to be done before {weekday0}", "{a.folk} was coming to supper", "nobody else would", "the {event} was near", "the {item} was still missing",
                "it was the custom in {here}", "{his} {kin} had always done so", "{he} could not sleep", "the doctor had told {him} to", "the neighbours might see", "{wx}", "{wx}", "{t} {feels}", "{he} {feels}", "it cost nothing",
                "the old way was too slow", "a promise is a promise", "there was no {drink} in the house", "the {vehicle} was late again", "{a.folk} had given {him} no choice", "it helped against the {trouble}",
                "work was the best cure for {emotion}", "somebody had to", "{t} was too {adj.feel} to do it", "{he} wanted to be alone"),
    "sothat": ("{t} could {do2.base}", "nobody would see the {item}", "the {item} would not get lost", "the neighbours would not talk", "{t} would not have to", "there would be something left for {weekday0}",
               "the {farm+} could not get out", "the children could sleep", "{he} might have an hour to {himself}", "it would be ready for the {event}", "{t} need not worry"),
    "emotion2": ("{emotion}", "{emotion} and {emotion}", "plain {emotion}", "sheer {emotion}"),
}

CLAUSES: dict[str, tuple[str, ...]] = {
    "wx.any": ("it was getting dark", "the streets were empty", "the {event} was over", "the lamps were lit", "the church bells were ringing", "the {shop} was shut", "the fire had gone out", "the market was crowded",
               "everyone was asleep", "the {vehicle} was late", "the {building} was closed", "the band was playing", "the {farm+} were restless", "a~{wild} called from the {landmark}", "the whole place smelt of {smell}",
               "there was no {drink} left", "the house was quiet", "the kettle was singing", "somebody was playing the {instrument}", "a~{adj.sound} {sound} came from the {room}", "the clock struck {small}",
               "the moon was up", "nobody was about", "the shops were closing", "supper was on the table", "the neighbours were still talking"),
    "bg": ("{group} {do3.past}", "{a.folk} {any.past}", "a~{farm} stood {where}", "a~{wild} ran across the {landmark}", "{a.folk} was {any.ing}", "{group} were {any.ing}", "there was a smell of {smell}",
           "a~{adj.sound} {sound} came from the {building}", "no {vehicle} had come since {weekday0}", "{some} {farm+} {farmdo.past}", "{third} {any.past}", "{third} was {any.ing}", "{third} {felt}"),
    "that": ("that {wx}", "that {t} had {do2.pp}", "that the {item} was {adj.thing}", "that {t} was {adv.degree} {adj.feel}", "that there was no {food} left", "that it would take {small} {unit}", "that {a.folk} might {any.base}",
             "that nothing had changed since {month0}", "that the {item} belonged to {a.folk}", "that {virtue} was worth more than money", "that it was too late to {do.base}", "that only {a.folk} could help", "that nobody would {any.base}",
             "that it was all the fault of {third}", "that {third} had {any.pp}"),
    "wh": ("why {t} had {do2.pp}", "where the {item} was", "how to {do.base}", "what to say", "whether to {do.base} or to wait", "who had {any.pp}", "what {t} meant", "how far it was to {town}", "who owned the {item}",
           "what {third} was up to", "when the {vehicle} would come", "what {a.folk} wanted with {a.thing}", "how much the {goods} cost", "if {t} would {do2.base}", "what had become of the {item}", "whose {item} it was", "why {third} had come"),
    "rel": ("who had {any.pp}", "who was {any.ing}", "who knew more than most about {topic}", "who lived {where}", "who {adv.often} {any.past}", "to whom {s} had once sold {a.thing}",
            "who wanted to {any.base}", "who was {adv.degree} {adj.feel}", "whom everyone in {street} knew", "who came from {town}", "who had nothing better to do"),
    "relthing": ("that had belonged to {a.kin}", "which nobody wanted", "that was worth {small} coins", "which smelt of {smell}", "that {a.folk} had left {where}", "that hung in the {room}",
                 "which {s} had bought in {town}", "that had cost a week's wages", "which was made of {material}", "that somebody had painted {colour}"),
    "feels": ("felt {adv.degree} {adj.feel}", "was {adv.degree} {adj.feel}", "felt {feel2}", "was {feel2}", "was too {adj.feel} to {idle.base}", "was full of {emotion}", "went red with {emotion}",
              "was not {adj.feel} any more", "grew {adj.feel}", "seemed {adj.feel}", "looked {adv.degree} {adj.feel}"),
    "felt": ("felt {adv.degree} {adj.feel}", "was {adv.degree} {adj.feel}", "was {feel2}", "grew {adj.feel}", "looked {adj.feel}", "said nothing", "only laughed", "shrugged", "went away"),
}

# kinds of weather with what can be said of them; a text has one of them throughout
WEATHER: dict[str, tuple[str, ...]] = {
    "rain": ("it was raining", "the rain had stopped at last", "rain drummed on the roof", "the river was rising", "the roads were deep in mud", "the gutters ran over", "the clouds hung low", "everything was wet", "the puddles were as big as ponds",
             "water dripped from the {tree+}", "a cold rain fell on {here}", "the hay was spoilt"),
    "snow": ("snow lay on the roofs", "it was snowing again", "the ground was frozen", "the pond was covered with ice", "the pump was frozen", "the ice was melting", "the road to {town} was blocked by snow", "frost had drawn flowers on the windows",
             "the wind was as sharp as a knife", "icicles hung from the gutters", "the {tree+} were bare"),
    "sun": ("the sun came out", "the day was hot", "the sky was blue", "it had not rained since {month0}", "the bees were in the {flower}", "the {tree+} were in leaf", "the well was almost dry", "the evening was warm", "the {flower} were out",
            "the hay smelt sweet", "not a leaf moved", "the dust lay thick on the road"),
    "fog": ("the fog was thick", "the fog had come up from the river", "one could not see the {building}", "the mist lay on the meadows", "the far bank was out of sight", "the fog was lifting", "horns sounded on the river", "the lamps looked like pale {fruit}"),
    "wind": ("the wind blew from the {compass}", "the wind had dropped", "the {tree+} were bending", "a tile had come off the roof", "the shutters were banging", "the leaves were falling", "the washing flew off the line", "smoke came down the chimney", "the gale was over"),
    "fair": ("the day was mild", "the dew was still on the grass", "the sky was grey but dry", "the days were getting shorter", "the swallows were back", "the barley was ripe", "the lambs were in the fields", "a fresh breeze came off the water", "the {fruit} were ripe"),
}

COMPASS = ("north", "south", "east", "west", "sea", "hills")
