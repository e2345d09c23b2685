"""Story plots: a setting, a problem, attempts, an outcome. Each step is a template; fillers go between the steps.

`{item}` is the thing of the story, `{p}` the main person, `{q}` the second, `{third}` a third. `ask` holds questions
that the finished story answers, with their answers, for reading comprehension; `short` is the story in one sentence.
"""

from __future__ import annotations

from typing import NamedTuple


class Plot(NamedTuple):
    name: str
    themes: tuple[str, ...]
    steps: tuple[str, ...]
    short: tuple[str, ...]
    ask: tuple[tuple[str, str], ...]


OPENINGS = (
    "{P} was a~{ptrade} in {here}[| and a~{adj.person} one|, though not a rich one|, and so had been {his} {kin}].",
    "In {here} lived a~{ptrade} [called|by the name of|named] {P}.",
    "One {season0}, when {wx}, {P} came to {here}.", "{P}, a~{adj.person} {ptrade}, lived in {street}[| with {his} {kin}|, two doors from the {building}].",
    "It was the {season0} of {year}, and {wx}.[| {P}, a~{ptrade} in {here}, was {adv.degree} {adj.feel}.]",
    "Nobody in {here} knew the {landmark} better than {P}, the {ptrade}.",
    "On the {ordinal} of {month0} {year} {P}, a~{ptrade} of {here}, {do.past}.",
    "\"I am a~{ptrade} and nothing else,\" {P} used to say[| to anyone who would listen].",
    "Before {he} became a~{ptrade}, {P} had been [a~{folk}|a~{trade}|nothing much].", "{wx}, and {P} was {do.ing}.",
    "There was once a~{adj.person} {ptrade} in {here}, and {his} name was {P}.",
    "If you had walked {dir} that {weekday0}, you would have seen {P} {do.ing}.", "People in {here} still tell the story of {P} and the {item}.",
    "My {kin} told me this about {P}, who was a~{ptrade} in {here} [in those days|at the time|long ago].",
    "{q} and {p} had been friends since school.[| Both lived in {here}.| {q} was a~{qtrade}, {p} a~{ptrade}.]",
    "The {building} in {here} stands {place}, and beside it lived {P}.", "All through {month0} {p} had been {do.ing}.",
)

PLOTS = (
    Plot("lost", ("search", "talk"), (
        "[One {weekday0}|That {weekday0}|The trouble began when] the {item} was gone. [{p} had left it {where}.|{p} had put it on the {furniture} the "
        "night before.|It had been {his} {kin}'s.]",
        "[{q}, the {qtrade}, came to help.|{p} asked {q} to help look for it.|\"It must be somewhere,\" said {q}.]",
        "[They found {a.thing} and {a.thing}, but no {item}.|By {weekday} they had looked everywhere but {where}.]",
        "[In the end it was {third} who found the {item}|At last {q} found the {item}] [{where}|in the pocket of a~{colour} {cloth}|at the bottom of the "
        "rain barrel|in the nest of a magpie|inside the {thing.big}].",
        "[{p} has kept it on a string ever since.|{p} laughed until {he} cried.|{p} bought {q} {some.food} by way of thanks.|After that the {item} hung "
        "on a nail by the door.]"),
        ("{P} lost the {item}, searched everywhere, and got it back in the end.", "A lost {item} was found again with the help of {q}."),
        (("What did {p} lose?", "{p} lost the {item}."), ("Who came to help?", "{q} came to help."))),
    Plot("flood", ("water", "home"), (
        "[It had rained for {small} days, and|After {small} days of rain] the {river} [was rising|came over its banks|stood as high as the bridge].",
        "[{p} carried the {thing.big} upstairs.|{p} and {q} carried sacks of sand to the {building}.]",
        "[In the night|Toward morning|At about {small} o'clock] the water [came under the door|ran through {street}|took the footbridge].",
        "[{q} came in a boat and called up to the window.|{q} waded across with a rope.|{third} would not leave the house until {p} took the cat as well.]",
        "[By {weekday} the water had gone down|Two days later the river was back in its bed], and [everything was covered with mud|the cellar was full of "
        "fish|the whole street was washing its floors].",
        "[Nobody was hurt.|They lost the potatoes, but nobody was hurt.|\"It is only mud,\" said {p}, and fetched a spade.]"),
        ("The {river} flooded {here}, and {p} and {q} helped each other until the water fell.", "A flood came to {here}; nobody was hurt."),
        (("Which river flooded?", "The {river} flooded."), ("Was anybody hurt?", "No, nobody was hurt."))),
    Plot("animal", ("farm", "search"), (
        "{p} had a~{pet0} called {petname0}[|, which followed {him} everywhere|, and a lazier {pet0} was never seen|, a present from {his} {kin}].",
        "[One morning|On {weekday0}] {petname0} was gone[|; the gate stood open|, and there was a hole in the fence].",
        "[{p} called {petname0} by name until {he} was hoarse.|{p} asked everyone {dir}.|{q} had seen a~{pet0} {where}, but that was another one.]",
        "[Toward evening|On the third day] {q} heard [something|a noise] {where}. [It was {petname0}, as {colour} with mud as a chimney sweep.|There sat "
        "{petname0}, eating {food}.|{petname0} had got stuck behind the {thing.big}.]",
        "[{p} carried {petname0} home under {his} coat.|{p} mended the fence the same evening.|{petname0} slept for two days.]",
        "[Since then the gate has a better latch.|They gave {q} {some.food} for {qhis} trouble.]"),
        ("{p} lost a~{pet0} called {petname0}, and {q} found it.", "{petname0} the {pet0} ran away and was found again."),
        (("What was the name of the {pet0}?", "The {pet0} was called {petname0}."), ("Who found {petname0}?", "{q} found {petname0}."),
         ("What kind of animal was {petname0}?", "{petname0} was a~{pet0}."))),
    Plot("quarrel", ("garden", "talk"), (
        "{p} and {q} were neighbours, and they quarrelled about [a wall|a pear tree|a strip of grass|the noise of a cock|a drain|the smoke of a stove].",
        "[{p} said that it had always been so.|{q} wrote a letter to the council.|Each of them told the story to the whole street.]",
        "[For {small} weeks they did not greet each other.|{q} put up a fence; {p} planted a hedge in front of it.]",
        "[Then {p} fell ill, and it was {q} who brought {some.food}.|Then came the storm, and the wall fell down by itself.|Then {third} asked them both "
        "to supper and locked the door.]",
        "[\"I was wrong,\" said {q}. \"So was I,\" said {p}.|They shook hands over the {item}.|Neither of them said sorry, but the next day the fence was "
        "gone.]",
        "[Now they share the {fruit}.|Today nobody remembers what it was about.|They have been friends ever since.]"),
        ("{p} and {q} quarrelled as neighbours and made peace in the end.",),
        (("Who were neighbours?", "{p} and {q} were neighbours."), ("Are they friends in the end?", "Yes, they made peace."))),
    Plot("theft", ("market", "search"), (
        "[Somebody had stolen|When {p} opened the shop, somebody had stolen|One night a thief took] [the {item}|the money from the till|two sacks of "
        "{goods}].",
        "[{p} sent for the police.|\"It is a crime and a shame,\" said {q}.|The policeman wrote everything down.]",
        "[There were footprints {where}.|A {colour} button lay on the floor.|{third} had seen a light at midnight.]",
        "[The thief turned out to be {a.folk2}.|The button belonged to a clerk from {town}.]",
        "[The judge said that whoever takes what belongs to another does wrong, however small the thing.|The thief had to give everything back and went "
        "to prison for {small} months.|The thief was sorry and worked {small} weeks for {p} to pay for it.]",
        "[{p} bought a better lock.|\"I would have given it, if I had been asked,\" said {p}.|Since then {p} counts the money twice.]"),
        ("A thief stole from {p}, was caught and was punished.",), (("What did {p} buy afterwards?", "{p} bought a better lock."),)),
    Plot("journey", ("road", "talk"), (
        "[{p} had to go to {there}|A letter called {p} to {there}|{p} had never been to {there} and wanted to see it][|, {n10} miles away|, because {his} "
        "{kin} was ill|, to buy {a.thing}].",
        "[{he} took the early {vehicle}.|The {vehicle} was full, so {he} went on foot.|{he} packed {some.food} and the {item}.]",
        "[On the road {he} met {q}, a~{qtrade}, who was going the same way.|At the first inn {he} met {q}, a~{qtrade}.]",
        "[Near the {landmark} the {vehicle} stopped, and nobody knew why.|Halfway there {wx}, and they had to wait.|They lost their way and slept in a barn.]",
        "[At last they saw the tower of {there}.|On {weekday} they came to {there}.]",
        "[\"Is that all?\" said {p}.|It was bigger than {p} had thought, and louder.|{p} found {his} {kin} well and in good spirits.]",
        "[The way back was shorter, as it always is.|{p} never travelled again, but {he} often spoke of it.|{p} and {q} write to each other to this day.]"),
        ("{p} travelled from {here} to {there} and met {q} on the way.",), (("Where did {p} go?", "{p} went to {there}."), ("Whom did {p} meet on the way?",
         "{p} met {q} on the way."))),
    Plot("contest", ("work", "market"), (
        "[Every year {here} holds a~{event}|For the {event} there was a prize of {small} gold coins|The {event} was only a week away], and {p} wanted to win.",
        "[{q} had won it {small} times.|Everyone thought that {q} would win.|The other was {q}, the {qtrade}.]",
        "[{p} practised in secret.|{p} got up at four every day.|{p} asked an old champion for advice.]",
        "[On the day {wx}.|Then, on the morning itself, the {item} broke.|{p} was so nervous that {he} could not eat.]",
        "[{p} came second, and it was enough.|{p} won by the width of a hand.|{q} won again, but only just.|Nobody won, for the judges could not agree.]",
        "[{q} shook {his} hand.|They spent the prize on {food} for everybody.|\"Next year,\" said {p}.]"),
        ("{p} and {q} competed at the {event}.",), (("Who wanted to win?", "{p} wanted to win."), ("What was held in {here}?",
         "A~{event} was held in {here}."))),
    Plot("letter", ("home", "talk"), (
        "A letter came for {p}[|, with a stamp from {there}|, {small} weeks late|, wet from the rain].",
        "[It was not meant for {him} at all.|The name on it was right, but nothing else.|{he} did not open it until the evening.]",
        "[It said that an uncle in {there} had died and left {him} a~{thing.big}.|It was from {q}, and it said: come at once.|It held {small} coins and "
        "no word of explanation.]",
        "[{p} read it {small} times.|{p} showed it to {q}, who only shook {qhis} head.|{p} put it behind the clock and thought about it for a week.]",
        "[In the end {he} answered it.|Then {he} walked to the post office and asked.|On {weekday} {he} took the {vehicle} to {there}.]",
        "[It had all been a mistake, but a happy one.|So began a friendship that lasted {n10} years.|The {thing.big} still stands in the {room}.]"),
        ("{p} got a strange letter and found out what it meant.",), (("What came for {p}?", "A letter came for {p}."), ("Where did the letter come from?",
         "The letter came from {there}."))),
    Plot("repair", ("work", "trouble"), (
        "The {thing.big} of {q} was broken, and {p} had promised to mend it.",
        "[The first try made it worse.|{p} took it apart and laid the pieces on the floor.|A screw was missing.]",
        "[{p} asked the {trade} for advice.|{p} looked for the right piece of {material} for {small} days.]",
        "[{q} came every morning to ask.|\"Take your time,\" said {q}, which did not help.]", "[At last it held.|Then, {when}, it worked again.]",
        "[{q} never noticed that the leg was shorter.|{q} paid with {some.food}.|It has held to this day.]"),
        ("{p} mended the {thing.big} of {q}.",), (("What was broken?", "The {thing.big} of {q} was broken."), ("Who mended it?", "{p} mended it."))),
    Plot("stranger", ("talk", "home"), (
        "[Late one evening|In the middle of a storm|On {weekday0}, toward dusk] there was a knock at the door of {p}.",
        "[Outside stood {q}, wet to the skin.|A stranger asked for a bed; {qhis} name was {q}.]",
        "[{p} put {some.food} on the table and asked nothing.|{p} gave {qhim} a dry {cloth}.]",
        "[{q} said that {qhe} was a~{qtrade} and had come from {there} on foot.|{q} told them about {there}, where {qhe} had been a~{qtrade}.]",
        "[In the morning the guest was gone, but on the table lay {a.thing}.|{q} stayed {small} days and mended everything that was broken.|{q} meant to "
        "leave, but {qhe} is still here.]",
        "[{p} never locked the door after that.|\"You never know who is outside,\" {p} used to say.|The neighbours had warned {him}; the neighbours were "
        "wrong.]"),
        ("{p} took in a stranger called {q} and did not regret it.",), (("What was the trade of the guest?", "The guest was a~{qtrade}."),
         ("Where had {q} come from?", "{q} had come from {there}."))),
    Plot("harvest", ("farm", "garden"), (
        "That year the {crop0} [would not grow|stood higher than ever|came late], and {p} was {adj.feel}.",
        "[It had not rained since {month}.|The crows took what the hail had left.|The {folk} said that it would all be lost.]",
        "[{q} lent {him} two men and a mule.|{p} carried water from the {landmark}, {n10} buckets a day.]",
        "[Then {wx}.|On the {ordinal} of {month} the weather changed.]",
        "[They brought in {n10} cartloads.|It was enough for the winter, and a little more.|Half of it was lost, but prices were good.]",
        "[At the harvest supper {p} danced with {q}.|{p} gave the first sack to {q}.]"),
        ("In a hard year {p} and {q} brought in the {crop0} together.",), (("What grew on the land?", "The {crop0} grew there."), ("Who helped {p}?",
         "{q} helped {p}."))),
    Plot("apprentice", ("trade", "talk"), (
        "{p}, a~{ptrade}, took an apprentice, and the apprentice was called {q}.",
        "[{q} was {adj.person} and {adj.person}.|At first {q} did everything wrong.|{q} broke {small} things in the first week.]",
        "[{p} showed {qhim} how to do it, once, twice, ten times.|\"Slowly,\" said {p}. \"Nobody learns it in a day.\"]",
        "[Then {p} fell ill, and {q} had to open the shop alone.|One day {p} was away, and a customer came with a~{adj.thing} {item}.]",
        "[When {p} came back, the work was done, and done well.|The customer came back to praise the work.]",
        "[{q} is a master today.|\"Now you are a~{ptrade},\" said {p}.|Later {q} had an apprentice, who broke things too.]"),
        ("{q} learnt the trade of a~{ptrade} from {p}.",), (("Who was the apprentice?", "{q} was the apprentice."), ("What was the trade of {p}?",
         "{p} was a~{ptrade}."))),
    Plot("fire", ("home", "water"), (
        "[A spark from the stove|A fallen candle|Lightning] set the roof of {p} on fire.",
        "[{q} saw the smoke and rang the bell.|{q} ran {dir} and shouted.]",
        "[The whole street made a chain with buckets from the {landmark}.|{group} came running with ladders.]",
        "[The roof was lost, but the walls stood.|They saved the {thing.big} and the {item}.]",
        "[For {small} weeks {p} lived with {q}.|Everybody brought something: {goods}, {goods}, a~{thing.big}.]",
        "[By {month} there was a new roof.|\"A house is only a house,\" said {p}. \"It is the neighbours that count.\"]"),
        ("The house of {p} burned, and the neighbours helped.",), (("Who rang the bell or gave the alarm?", "{q} gave the alarm."),)),
    Plot("secret", ("idle", "talk"), (
        "{p} had a secret[|, and it was a heavy one|, and only the {pet0} knew it]: [{he} could not read|{he} had broken the {item} of {q}|{he} wrote "
        "poems|{he} was afraid of water].",
        "[For years nobody noticed.|{he} was careful, and careful people are lonely.]",
        "[Then {q} asked {him} to read the {paper} aloud.|One evening {q} asked straight out.|{third} nearly guessed it.]",
        "[{p} went red.|{p} could have lied, but {he} was tired of it.]",
        "[\"Is that all?\" said {q}.|{q} did not laugh.|\"I have known it for years,\" said {q}.]",
        "[It is easier to carry a thing between two.|After that {p} slept well.|What had been so heavy weighed nothing at all.]"),
        ("{p} told {q} a secret and was glad of it.",), (("To whom did {p} tell the secret?", "{p} told it to {q}."),)),
    Plot("music", ("idle", "home"), (
        "{q} played the {inst0}[|, badly at first|, and the whole street could hear it].",
        "[{p}, who lived next door, could not sleep.|{p} stuffed wool into {his} ears.]",
        "[{p} wrote a polite letter.|{p} knocked on the wall.|{p} bought a~{instrument} out of spite.]",
        "[Then one evening the {inst0} was silent.|For {small} days no sound came through the wall.]",
        "[{p} went to see; {q} was in bed with a fever.|The {inst0} was broken, and {q} had no money to mend it.]",
        "[\"Play again,\" said {p}, \"I have got used to it.\"|{p} paid for the repair and never told anybody.|Now they play together on {weekday}s.]"),
        ("{q} played the {inst0}, and {p} learnt to like it.",), (("What instrument did {q} play?", "{q} played the {inst0}."), ("Who lived next door?",
         "{p} lived next door."))),
    Plot("cheat", ("market", "talk"), (
        "At the market {p} bought {a.thing} from {a.folk2}[|, who swore that it was gold|, and paid too much].",
        "[At home the colour came off.|It broke the same evening.|{q} laughed when {qhe} saw it.]",
        "[{p} went back, but the stall was gone.|\"A bargain is a bargain,\" said the man.]",
        "[{q} had an idea.|{p} did not shout; {he} waited until a crowd had gathered.]",
        "[In front of everybody {p} asked for the money back.|{q} bought the same thing and paid with a bad coin that was only painted.]",
        "[The cheat paid, and was never seen in {here} again.|To sell what is false is fraud, the judge said, and fraud is theft with a smile.]"),
        ("{p} was cheated at the market and got justice.",), (("Where was {p} cheated?", "{p} was cheated at the market."),)),
    Plot("wedding", ("talk", "market"), (
        "{p} and {q} were to be married in {month0}.",
        "[The dress was sewn, the cake was ordered, and then {wx}.|A week before, {p} lost the ring.|The musicians went to {town} by mistake.]",
        "[{group} took the matter in hand.|{third} offered a barn.|\"We shall marry in boots, then,\" said {q}.]",
        "[So they danced to a~{instrument} and a spoon.|They ate {food} and {food} out of buckets.|The priest came by boat.]",
        "[It was the best wedding that {here} ever saw.|Old people still speak of it.]",
        "[They have {small} children now.|The ring turned up in the cake.|Every year on that day they put on their boots.]"),
        ("{p} and {q} married, though much went wrong.",), (("Whom did {p} marry?", "{p} married {q}."), ("In which month was the wedding?",
         "The wedding was in {month0}."))),
    Plot("well", ("work", "water"), (
        "The well of {here} [ran dry|tasted of iron|had a crack], and people carried water from {there}.",
        "[{p} said that one must dig deeper.|{q} had a map on which another well was marked.]",
        "[The council talked for {small} weeks.|There was no money.]",
        "[So {p} began to dig, alone, before breakfast.|One evening {p} and {q} simply began.]",
        "[At {n10} feet they struck rock.|Day after day more people came with spades.]",
        "[On {weekday} the water came, brown at first, then clear.|At {n10} feet there was water.]",
        "[The first cup went to the oldest woman in town.|The council put up a sign with its own name on it.]"),
        ("{p} and {q} dug a new well for {here}.",), (("What did {p} and {q} dig?", "They dug a well."), ("From where had people carried water?",
         "They had carried it from {there}."))),
    Plot("school", ("home", "talk"), (
        "At {age1} {p} went to school for the first time[|, among children of six|, because {he} wanted to read {his} own letters].",
        "[{q}, the teacher, gave {him} a seat by the window.|The children laughed, but not for long.]",
        "[The letters would not stay in {his} head.|{p} learnt one letter a day.]",
        "[{q} lent {him} a book about {topic}.|In the evenings {q} came and read with {him}.]",
        "[By {month} {p} could read the names of the shops.|At Easter {he} read a whole page aloud.]",
        "[The first thing {he} read was a letter {n10} years old.|\"So that is what it said,\" said {p}.]"),
        ("{p} learnt to read late in life, with {q} as the teacher.",), (("How old was {p} when school began?", "{p} was {age1} years old."),
         ("Who was the teacher?", "{q} was the teacher."))),
    Plot("ghost", ("search", "idle"), (
        "People said that there was a ghost in the {building0} of {here}.",
        "[At night one could hear it walk.|It rattled, it sighed, and once it sneezed.]",
        "[{p} did not believe in ghosts and bet {q} {small} coins.|{q} dared {p} to spend a night there.]",
        "[{p} took a lantern, {some.food} and the {item}.|At midnight {wx}, and then {p} heard it.]",
        "[It was {a.wild} in the chimney.|It was {third}, who had nowhere else to sleep.|It was only a loose shutter and a~{farm}.]",
        "[{p} won the bet and gave the money away.|{p} never told what {he} had seen, and so the ghost lives on.]"),
        ("{p} spent a night in the {building0} and found no ghost.",), (("Where was the ghost said to be?", "It was said to be in the {building0}."),
         ("Who spent the night there?", "{p} spent the night there."))),
    Plot("illness", ("home", "talk"), (
        "In {month0} {q} fell ill[| with a fever|, and the doctor shook his head|, badly enough to send for {qhis} {kin}].",
        "[{p} sat by the bed {time.span}.|{p} cooked {food} that nobody ate.]",
        "[The medicine had to come from {there}.|The doctor lived in {there}, and the road was closed.]",
        "[{p} went on foot, through the night.|{third} rode there and back without a rest.]",
        "[On the {ordinal} day {q} asked for {food}.|Toward morning the fever fell.]",
        "[\"You look worse than I do,\" said {q}.|{p} slept for a day and a night.]"),
        ("{q} was ill, and {p} fetched what was needed until {qhe} was well again.",), (("Who fell ill?", "{q} fell ill."),
         ("Where was the doctor or the medicine?", "It was in {there}."))),
    Plot("invention", ("work", "idle"), (
        "{p} had invented a machine that could [peel {fruit}|count {farm+}|wake people with cold water|butter bread|call the {farm+} home].",
        "[It took up half the {room}.|It was made of {material}, {material} and an old {thing.big}.]",
        "[{q} was the first to try it.|On {weekday0} {p} showed it to {group}.]",
        "[It threw {food} at the wall.|It worked once, and never again.|There was a bang, and the lamp went out.]",
        "[Everyone laughed, {p} too.|\"It only needs a longer belt,\" said {p}.]",
        "[Today it stands in the museum.|{q} still has a dent in {qhis} hat.|The second one worked, but by then nobody wanted it.]"),
        ("{p} invented a machine that did not quite work.",), (("Who invented a machine?", "{p} invented a machine."), ("Who tried it or saw it?",
         "{q} saw it."))),
)
