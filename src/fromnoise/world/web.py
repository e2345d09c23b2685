"""Web pages, first part: news, court reports, opinions, notices, local history."""

from __future__ import annotations

from .grammar import call, finish
from .requests import PERSONS
from .scene import Scene

# (headline, lead, details)
NEWS = (
    ("{vehicle0.cap} breaks down near {here}", "A~{vehicle0} {broke} near the {landmark} {when}, and {small} passengers had to walk to {here}.",
     ("Nobody was hurt.", "\"We sang to keep warm,\" said {name}.", "The engine is being repaired in {there}.", "It is the {ordinal} time this year.")),
    ("New {building0} for {here}", "After {small} years of talk, {here} is to have a new {building0}.", ("It will stand {where}.",
     "The money comes from the sale of the old {building0}.", "Work begins in {month}.",
     "{name}, who drew the plans, promised {adj.thing} windows and no towers.", "Not everyone is pleased: {group} had asked for a~{building} instead.")),
    ("The council and {topic.bare}", "The council of {here} argued for {small} hours on {weekday} about {topic}.", ("The vote was {n10} to {n10}.",
     "{name} left the room in protest.", "The mayor called it a~{adj.idea} plan.", "A decision is expected {when.soon}.",
     "\"{virtue.cap} costs nothing,\" said one member.")),
    ("{crop0.cap} dearer again", "The price of {crop0} at {here} market rose to {small} coins a sack this week.", ("Dealers blame the {sky} in {month}.",
     "A year ago it was {n2}.", "{goods2.cap} cost the same as before.",
     "\"People will eat {veg} instead,\" said {name}, who has a stall near the {landmark}.", "Farmers near {there} still have some to sell.")),
    ("{adj.animal.cap} {farm0} stops the train", "The early train to {there} stood still for {n10} minutes on {weekday} because of a~{farm0} on the line.",
     ("The driver, {name}, tried {food} and kind words.", "In the end it left by itself.", "The owner has been asked to mend the fence.",
     "Passengers fed it {fruit}.")),
    ("Prize for a gardener", "{name} won the first prize at the {event} in {here} with a basket of {veg}.",
     ("The second prize went to {name} for {flower}.", "The judges tasted everything {small} times.",
     "\"Good soil and {virtue},\" was all the winner would say.", "More than {n100} people came.")),
    ("Storm over {here}", "A storm passed over {here} {when} and took the roof off the {building}.", ("{small.cap} {tree+} fell across {street}.",
     "The {river} rose by {n2} feet.", "Firemen worked until dawn.", "School begins an hour later until {weekday}.",
     "Nobody was hurt, though {name} had a narrow escape.")),
    ("{building0.cap} closes", "The {building0} in {street} will close at the end of {month}.", ("It opened in {year.old}.",
     "{small.cap} people lose their work.", "\"Nobody came any more,\" said the owner, {name}.", "What will become of the house is not known.",
     "Some hope that a~{building} will move in.")),
    ("Lost {pet0} found", "A~{pet0} called {petname0} has come home to {name} in {street} after {small} weeks.", ("It had walked from {there}.",
     "It was {adj.feel} but well.", "{petname0} was found {where} by {group}.", "\"I never gave up,\" said the owner.")),
    ("{here} wins at {there}", "The football club of {here} beat {there} by {n2} to one on {weekday}.", ("{name} scored twice.",
     "It {rained} from beginning to end.", "{n100} people watched.", "The goalkeeper, a~{trade} by trade, was carried off the field on a door.",
     "The next match is in {month}.")),
    ("Bridge at {here} to be repaired", "The bridge over the {river} will be closed from the {ordinal} of {month} for {small} weeks.",
     ("Carts must go by way of {there}.", "A ferry will run from {n2} in the morning.", "The work costs {n100} pounds.",
     "\"It should have been done {n10} years ago,\" said {name}, an engineer.")),
    ("Choir sings in {building0}", "The choir of {here} sang in the {building0} on {weekday} evening, with {name} at the {instrument}.",
     ("The hall was {adj.place}.", "The second half was better than the first.", "{a.folk} fell asleep in the front row.", "There was {drink} afterwards.",
     "The programme will be repeated in {there}.")),
    ("School collects for {there}",
     "Pupils of the school in {here} have collected {n100} coins for the people of {there}, who lost their houses in the flood.",
     ("They sold {food} and painted stones.", "{name}, aged {n10}, gave her savings.", "The teacher, {name}, called it a lesson in {virtue}.")),
    ("Oldest {ptrade} retires", "{name}, the oldest {ptrade} in {here}, stops work this {season0} at the age of {n10}.",
     ("\"I have {any.pp} enough,\" the old {ptrade} said.", "The shop goes to a {kin}.", "The first customer, in {year.old}, was {a.folk}.",
     "There will be a supper at the inn.")),
    ("Strange light over {landmark}", "Several people saw a {colour} light over the {landmark} {when}.", ("\"It hummed,\" said {name}.",
     "The police found only a lantern.", "The {trade} thinks that it was the moon.", "It was not seen again.")),
    ("{wild0.cap} in the {building0}", "A~{wild0} got into the {building0} {when} and could not be driven out for {small} hours.", ("It ate {food}.",
     "{name}, the gamekeeper, caught it in a~{container}.", "It was set free near the {landmark}.", "Children have asked for it to come back.")),
)
QUOTES = (
    "\"It is {adv.degree} {adj.idea},\" said {name}, {a.trade}.", "{name}, who lives in {street}, said {that2}.",
    "\"Nobody asked us,\" complained {name}, {age}.", "The owner could not be reached.", "\"We shall see,\" was all that {name} would say.",
    "According to {name}, it was {adv.degree} {adj.weather} that day.", "Some {folk+} said {that2}; others shrugged.",
    "\"I was {any.ing} and saw nothing,\" said {name}.", "The mayor thanked {group}.", "Readers who know more are asked to write to us.",
    "More in our next number.", "It is not the first time: in {year.old} the same thing happened in {there}.", "{wx}.",
    "The {trade} {any.past}, and {group} {do3.past}.",
)
CRIMES = (
    ("steal {goods} from the shop of {owner}", "theft"), ("break into the {locked} of {owner} and taken {n100} coins", "burglary"),
     ("set fire to the {structure} of {owner}", "arson"), ("put poison in the well of {owner}", "poisoning"),
    ("poison the {animal} of {owner}", "cruelty"), ("rob {owner} {where} with a knife", "robbery"), ("hit {owner} over the head with a~{thing.small}",
     "assault"), ("smash the windows of {owner}", "vandalism"),
    ("cut the brakes of the {vehicle} of {owner}", "attempted murder"), ("lock {owner} in a cellar for {small} days", "kidnapping"),
     ("sell {owner} a~{thing.big} that was not for sale", "fraud"), ("wreck the {thing0} of {owner} out of spite", "vandalism"),
    ("kill the {animal} of {owner}", "cruelty"), ("threaten {owner} and asked for money", "blackmail"), ("drown the {animal} of {owner} in the {river}",
     "cruelty"), ("tear down the {structure} of {owner} by night", "vandalism"),
    ("sign letters with the name of {owner}", "forgery"), ("open the {locked} of {owner} with a false key", "burglary"), ("try to strangle {owner} {where}",
     "attempted murder"), ("burn down the {structure} of {owner}", "arson"),
    ("trap the {animal} of {owner} and sold it", "theft"), ("saw through the ladder of {owner}", "assault"), ("pick the lock of the {locked} of {owner}",
     "burglary"), ("starve {qhis} own {animal}", "cruelty"),
)
COURT = (
    "[The court in {here}|The judge at {here}|On {weekday} the court of {here}] [sent {Q}, a~{qtrade}, to prison for {small} [months|years]|fined {Q}, "
    "a~{qtrade}, {n100} coins|found {Q}, a~{qtrade}, guilty of {crime0}].",
    "{Q} had {crimepp}.",
    "[{Qhe} said|The accused said] that [it was only a joke|{qhe} had been {adj.feel}|{qhe} needed the money|the other had begun it|nobody would have "
    "noticed].",
    "[The judge would not hear of it.|\"That is no excuse,\" said the judge.|The court did not believe a word of it.]",
    "\"[To harm another person is a crime, whatever the reason|What belongs to another is not yours to take or break|Who harms an animal for sport does "
    "wrong|Anger is no excuse for {crime0}|You could have asked for help instead],\" the judge said.",
    "[{owner.cap} was not badly hurt.|{owner.cap} is still afraid to go out.|The damage came to {n100} coins.|{owner.cap} said that money would not mend it.]",
    "[The police had found the {item} at the home of {Q}.|A neighbour had seen everything.|{third} gave evidence.]",
    "[{Q} must also pay for the damage.|{Q} said sorry to {owner} in court.|People who know of such a plan should tell the police before it is too "
    "late.|Nobody may take the law into their own hands, the court added.]",
)
OPINION_HEADS = ("Why I am against {topic0}", "In praise of {virtue0}", "A word about {topic0}", "Too much {vice0}", "What {here} needs",
    "Who still {any.s}?", "On {virtue0} and {vice0}", "Must we talk about {topic0}?")
OPINION = (
    "I have nothing against {topic0}; what I mind is the {vice0}.", "Everyone has an opinion about {topic0}, and mine is this: {virtue0} comes first.",
    "When I was young, people {do3.past} and were no worse for it.", "Some say {that2}. I doubt it.",
    "Those who {any.base} should think of those who cannot.", "It is easy to {any.base}; it is hard to do it with {virtue0}.",
    "Why should {group} pay for it?", "Let us be honest: nobody wants to {any.base} when {wxnow}.",
    "I do not say that it is wrong to {any.base}. I say that there is a time for it.",
    "If the council had listened to {a.folk}, we would not be where we are.", "My {kin}, who {any.past} for {n10} years, thinks as I do.",
    "A town without a~{building} is like {food} without {spice}.", "On the one hand it costs money; on the other hand it brings {emotion} to {group}.",
    "We are told {that2}, but who has counted?", "There are {small} reasons for this.",
    "First, {topic0} concerns us all. Second, {vice0} helps nobody. Third, it is cheaper.", "Perhaps I am {adj.person}. So be it.",
    "What we need is less {vice0} and more {virtue0}.", "The truth lies, as so often, in the middle.",
    "Nobody is forced to {any.base}, and nobody should be laughed at who does.", "I asked {a.folk}, and the answer was {adj.feel2}.",
    "To hurt others, or what belongs to them, is never right; on that at least we agree.", "And yet I would not live anywhere else.",
    "Think about it the next time you {any.base}.",
)
HISTORY = (
    "The {building} of {here} was built in {year.old} by {name}, a~{trade}[| from {there}|, who never saw it finished].",
    "In {year.old} a fire [destroyed {n10} houses in {street}|took half of {street}|began in the {building} and burned for {small} days].",
    "The name of {here} [is older than the town|means nothing today|comes from an old word for {landmark.bare}].",
    "Until {year.old} the {landmark} belonged to {name}.", "The railway came in {year.old}, and with it came {group}.",
    "During the winter of {year.old} the {river} froze, and people {do3.past} on the ice.", "The first school had {n10} pupils and one {furniture}.",
    "Nobody knows who built the {landmark}; the records begin in {year.old}.",
    "Around {year.old} most people in {here} lived by {goods.ing}.", "A stone {where} recalls {name}, who {any.past} in {year.old}.",
    "In {year.old} the town sold {goods} to {there} and bought {goods} in return.",
    "The {event} has been held since {year.old}, except in the years of the war.", "The oldest house, in {street}, is made of {material2}.",
    "Of the {small} mills on the {river} only one is left.", "When the {building} closed in {year.old}, many {folk+} moved to {there}.",
    "An old {paper} of {year.old} says {that2}.", "The museum keeps a~{thing.small} that is said to have belonged to {name}.",
    "Later the house became a~{building}, then a~{building}, and today it is empty.",
)
TOWN = (
    "{here} lies on the {river}, {n10} miles from {there}[|, and has {n100} houses|, between a~{landmark} and a hill].",
    "The market is held on {weekday}s [in front of the {building}|by the {landmark}].", "Visitors like the {building}, the {landmark} and the {fruit}.",
    "There are {small} inns; the best is in {street}.", "You can reach it by {vehicle} from {there}.",
    "In {season0} the {flower} along the {river} are worth the journey.", "People here live by {goods.ing} and by {crop}.",
    "The {shop} in {street} sells {goods2}, and gossip.", "Do not miss the {event} in {month}.", "The air smells of {smell}, which one gets used to.",
    "Ask for {dish}, which nobody makes better.", "At night it is {adj.place}, except on {weekday}s.",
)
NOTICES = (
    "For sale: {a.thing0}, {adj.thing} but {adj.thing}. {n10} coins or near. Ask at the {shop}, {street}.",
    "Wanted: a~{adj.person} {folk} to help with {crop}. Bed and {food} given.",
    "Lost {when}: a~{adj.thing} {thing.small} of {material}. The finder is asked to bring it to the {building}. Reward.",
    "Found {where}: a~{colour} {cloth} with a~{thing.small} in the pocket.", "Rooms to let in {street}, {adj.place}, no {pet+}.",
    "Lessons on the {instrument}, {weekday}s from {n2}. Beginners welcome.", "Fresh {goods} every {weekday} at {n2}, next to the {building}.",
    "The {event} of {here} takes place on the {ordinal} {weekday} of {month}. Bring {food}.",
    "The {building} is closed until further notice.", "Given away: {small} {pet+}, {adj.animal} and clean.", "{trade.cap} seeks work, has own {tool+}.",
    "Swap: a~{thing.big} for a~{thing.big}. No money.",
    "The person who took a~{thing.small} from the {room} of the inn is asked to return it; nothing more will be said.",
    "Please do not feed the {farm+} {where}.",
    "{vehicle.cap} to {there} every {weekday} at {n2}, back at {n2}. Fare: {small} coins.",
)


class Pages:
    """News, court, opinion, history, town and notice pages; each method returns paragraphs."""

    def __init__(self, scene: Scene):
        self.scene = scene
        compile_all = scene.compile_all
        self.news = [(scene.compile(head), scene.compile(lead), compile_all(details)) for head, lead, details in NEWS]
        self.quotes, self.crimes = compile_all(QUOTES), [(scene.verb_phrase(text), name) for text, name in CRIMES]
        self.opinion_heads, self.opinion = compile_all(OPINION_HEADS), compile_all(OPINION)
        self.history, self.town, self.notices = compile_all(HISTORY), compile_all(TOWN), compile_all(NOTICES)
        self.court = compile_all(COURT)
        self.court_head = scene.compile("[Court report|From the courts|{crime0.cap} in {here}|Guilty of {crime0}|Before the judge]")

    def news_item(self) -> list[str]:
        scene = self.scene
        scene.new_people()
        scene.set_themes("work", "talk")
        head, lead, details = scene.pick(self.news)
        lines = [finish(scene.say(head))]
        body = [scene.say(lead)]
        rest = [scene.say(part) for part in scene.sample(details, scene.number(1, 4))]
        rest[1:1] = [scene.choose(self.quotes) for _ in range(scene.number(0, 2))]
        body += rest
        if len(body) > 4 and scene.chance(0.6):
            return [*lines, scene.paragraph(body[:2], "news"), scene.paragraph(body[2:], "news")]
        return [*lines, scene.paragraph(body, "news")]

    def court_report(self) -> list[str]:
        scene = self.scene
        scene.new_people()
        deed, scene.crime0 = scene.pick(self.crimes)
        scene.owner = scene.pick(PERSONS)
        if scene.owner.startswith("my "):  # a report names people
            scene.owner = scene.full_name()
        scene.crimepp = deed[3] + call(deed[5])
        parts = [self.court[0], self.court[1], *scene.some(self.court[2:], scene.number(2, 5))]
        return [finish(scene.say(self.court_head)), scene.paragraph([scene.say(part) for part in parts], "news")]

    def opinion_page(self) -> list[str]:
        scene = self.scene
        scene.new_people()
        scene.set_themes("work", "talk", "idle")
        lines = [finish(scene.choose(self.opinion_heads))] if scene.chance(0.7) else []
        sentences = [scene.say(part) for part in scene.sample(self.opinion, scene.number(5, 11))]
        if len(sentences) > 7:
            lines += [scene.paragraph(sentences[:4], "present"), scene.paragraph(sentences[4:], "present")]
        else:
            lines.append(scene.paragraph(sentences, "present"))
        if scene.chance(0.4):
            lines.append(f"{scene.full_name()}, {scene.here}")
        return lines

    def history_page(self) -> list[str]:
        scene = self.scene
        scene.new_people()
        scene.set_themes("market", "idle")
        parts = scene.sample(self.history, scene.number(4, 9))
        sentences = [scene.say(part) for part in parts]
        head = [f"A short history of {scene.here}"] if scene.chance(0.4) else [f"{scene.here} then and now"] if scene.chance(0.3) else []
        if len(sentences) > 5:
            return [*head, scene.paragraph(sentences[:3], "news"), scene.paragraph(sentences[3:], "news")]
        return [*head, scene.paragraph(sentences, "news")]

    def town_page(self) -> list[str]:
        scene = self.scene
        scene.new_people()
        first, *others = self.town
        return [scene.paragraph([scene.say(first), *(scene.say(part) for part in scene.sample(others, scene.number(3, 7)))], "present")]

    def notice_board(self) -> list[str]:
        scene = self.scene
        scene.new_people()
        head = [scene.pick(("Notices", "Small advertisements", "On the board this week", f"Market notices from {scene.here}"))]
        return head + [finish(scene.elaborate(scene.say(part), "notice")) for part in scene.sample(self.notices, scene.number(3, 8))]
