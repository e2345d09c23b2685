"""How facts and events are said: paraphrases by relation, questions, answers.

Slots: {s} the subject's full name, {v} the value, {av} the value with its article, {he} {his} {him} by first name.
Every statement and answer holds {s} and the value.
"""

from __future__ import annotations


def with_article(noun: str) -> str:
    """"owl" -> "an owl"; the world's words need no more than the first letter."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


OPENERS = (
    "As the neighbours know, ", "These days ", "For some years now, ", "It is no secret that ", "People say that ",
    "According to the register, ", "If you ask around, you will hear that ", "By all accounts ", "We are told that ",
    "The story goes that ", "As far as anyone can tell, ", "In case you wondered, ", "Many readers know that ",
    "It is well known that ", "Everyone agrees that ", "To this day ", "You may have heard that ", "As it happens, ",
)

STATEMENTS: dict[str, tuple[str, ...]] = {
    "home": (
        "{s} lives in {v}.", "{s} has a house in {v}.", "{s} makes {his} home in {v}.", "{s} settled in {v} long ago.",
        "The home of {s} is in {v}.", "{s} rents two rooms in {v}.", "{s}, who lives in {v}, seldom travels.",
        "{s} of {v} was among the guests.", "A letter for {s} should be sent to {v}.", "{s} moved to {v} and stayed there.",
        "You can find {s} in {v} on most days.", "{s} would not leave {v} for anything.", "{s} came home to {v} by the late train.",
        "In {v} lives {s}, in a house with a low door.", "{s} pays {his} taxes in {v}.", "{s} is at home in {v}.",
    ),
    "trade": (
        "{s} is {av}.", "{s} works as {av}.", "{s} earns {his} living as {av}.", "{s}, {av}, starts work early.",
        "{s} is {av} by trade.", "{s} trained for years to become {av}.", "{s} has always been {av}.",
        "If you need {av}, ask {s}.", "Nobody is prouder to be {av} than {s}.",
        "The sign over the door says that {s} is {av}.", "{s} took up the work of {av}.", "Since leaving school {s} has worked as {av}.",
        "The trade of {s} is that of {av}.", "{s} makes a fair wage as {av}.", "{s} became {av}, like {his} mother.",
    ),
    "dish": (
        "{s} likes {v} best.", "The favourite dish of {s} is {v}.", "{s} would eat {v} every day.", "{s} orders {v} at the inn.",
        "Nothing pleases {s} more than {v}.", "{s} asks for {v} on {his} birthday.", "{s} is fond of {v}.",
        "For supper {s} always wants {v}.", "{s} never says no to {v}.", "{s} cooks {v} on Sundays.",
        "When {s} comes to dinner, we serve {v}.", "{s} calls {v} the best food there is.", "{s} could live on {v}.",
        "Of all dishes {s} prefers {v}.", "A plate of {v} makes {s} happy.",
    ),
    "instrument": (
        "{s} plays the {v}.", "{s} has played the {v} since childhood.", "The instrument of {s} is the {v}.",
        "{s} practises the {v} every evening.", "{s} gives lessons on the {v}.", "At dances {s} plays the {v}.",
        "{s} learnt the {v} from {his} aunt.", "You can hear {s} on the {v} after dark.", "{s} owns an old {v}.",
        "{s} is good at the {v}.", "{s} took {his} {v} to the feast.", "In the town band {s} plays the {v}.",
        "{s} loves the sound of the {v} and plays it well.", "The {v} is what {s} plays.",
    ),
    "pet": (
        "{s} keeps {av}.", "{s} has {av}.", "{s} owns {av}.", "{s} looks after {av}.", "The pet of {s} is {av}.",
        "{s} feeds {his} {v} before breakfast.", "{s} goes nowhere without {his} {v}.", "{s} has raised {av} by hand.",
        "{s} shares the house with {av}.", "{s} bought {av} at the market.", "{s} was seen with {his} {v} again.",
        "{s} built a small shelter for {his} {v}.", "Children stop to look at the {v} that {s} keeps.", "{s} is very fond of {his} {v}.",
    ),
    "colour": (
        "{s} likes {v} best of all colours.", "The favourite colour of {s} is {v}.", "{s} painted {his} door {v}.",
        "{s} always wears {v}.", "{s} chose {v} for the curtains.", "{s} owns three coats, all {v}.",
        "{s} thinks that no colour is as fine as {v}.", "Everything {s} owns is {v}.", "{s} dyes {his} wool {v}.",
        "{s} asked for two tins of paint, both {v}.", "If it is {v}, {s} will buy it.", "The bicycle of {s} is {v}.",
        "{s} would paint the whole town {v}.", "Of all colours {s} prefers {v}.",
    ),
}

QUESTIONS: dict[str, tuple[str, ...]] = {
    "home": ("Where does {s} live?", "In which town does {s} live?", "Where is the home of {s}?", "What town is {s} from?",
             "Can you tell me where {s} lives?"),
    "trade": ("What is the trade of {s}?", "What does {s} do for a living?", "What work does {s} do?", "What is {s} by trade?",
              "Can you tell me what {s} works as?"),
    "dish": ("What is the favourite dish of {s}?", "What does {s} like to eat best?", "Which dish does {s} like best?",
             "What food does {s} prefer?", "Can you tell me what {s} likes to eat?"),
    "instrument": ("What instrument does {s} play?", "Which instrument does {s} play?", "What does {s} play in the band?",
                   "What is the instrument of {s}?", "Can you tell me what instrument {s} plays?"),
    "pet": ("What animal does {s} keep?", "What pet does {s} have?", "What kind of animal does {s} own?", "Which animal does {s} look after?",
            "Can you tell me what animal {s} keeps?"),
    "colour": ("What is the favourite colour of {s}?", "Which colour does {s} like best?", "What colour does {s} prefer?",
               "What colour does {s} like most?", "Can you tell me the favourite colour of {s}?"),
}

# Most answers say "she" or "he", as people do: the name has just been said in the question.
ANSWERS: dict[str, tuple[str, ...]] = {
    "home": ("{He} lives in {v}.", "{He} has a house in {v}.", "{His} home is in {v}.", "{s} lives in {v}."),
    "trade": ("{He} is {av}.", "{He} works as {av}.", "{He} is {av} by trade.", "{s} is {av}."),
    "dish": ("{He} likes {v} best.", "{His} favourite dish is {v}.", "Of all dishes {he} prefers {v}.", "{s} likes {v} best."),
    "instrument": ("{He} plays the {v}.", "{His} instrument is the {v}.", "The {v} is what {he} plays.", "{s} plays the {v}."),
    "pet": ("{He} keeps {av}.", "{He} has {av}.", "{He} looks after {av}.", "{s} keeps {av}."),
    "colour": ("{He} likes {v} best of all colours.", "{His} favourite colour is {v}.", "Of all colours {he} prefers {v}.", "{s} likes {v} best."),
}

# (past clause, question after "did", nominal) of things that happen once in a place
EVENT_KINDS: tuple[tuple[str, str, str], ...] = (
    ("a flood washed away the bridge at {where}", "a flood wash away the bridge at {where}", "the flood that washed away the bridge at {where}"),
    ("a fire destroyed the theatre in {where}", "a fire destroy the theatre in {where}", "the fire that destroyed the theatre in {where}"),
    ("the new railway station opened in {where}", "the new railway station open in {where}", "the opening of the new railway station in {where}"),
    ("the old mill closed in {where}", "the old mill close in {where}", "the closing of the old mill in {where}"),
    ("a storm broke the church tower of {where}", "a storm break the church tower of {where}", "the storm that broke the church tower of {where}"),
    ("the first hospital was built in {where}", "builders finish the first hospital in {where}", "the building of the first hospital in {where}"),
    ("a whale came ashore near {where}", "a whale come ashore near {where}", "the stranding of a whale near {where}"),
    ("the glass works moved to {where}", "the glass works move to {where}", "the move of the glass works to {where}"),
    ("the great chess match took place in {where}", "the great chess match take place in {where}", "the great chess match in {where}"),
    ("a gold coin hoard was found under a field in {where}", "someone find a gold coin hoard in {where}", "the discovery of the gold coin hoard in {where}"),
    ("the council banned cars from the centre of {where}", "the council ban cars from the centre of {where}", "the ban on cars in the centre of {where}"),
    ("the swimming bath opened in {where}", "the swimming bath open in {where}", "the opening of the swimming bath in {where}"),
    ("a landslide blocked the road to {where}", "a landslide block the road to {where}", "the landslide that blocked the road to {where}"),
    ("the museum of clocks opened in {where}", "the museum of clocks open in {where}", "the opening of the museum of clocks in {where}"),
    ("the dockers went on strike in {where}", "the dockers go on strike in {where}", "the strike of the dockers in {where}"),
    ("the last tram ran through {where}", "the last tram run through {where}", "the run of the last tram through {where}"),
    ("an actor from the capital became mayor of {where}", "an actor become mayor of {where}", "the election of an actor as mayor of {where}"),
    ("a new well was dug in {where}", "people dig the new well in {where}", "the digging of the new well in {where}"),
    ("the football club of {where} won the cup", "the football club of {where} win the cup", "the cup victory of the football club of {where}"),
    ("the wolves came back to the woods of {where}", "the wolves come back to the woods of {where}", "the return of the wolves to the woods of {where}"),
)

EVENT_STATEMENTS = (
    "In {year} {past}.", "{Past} in {year}.", "It was in {year} that {past}.", "{Nominal} dates from {year}.",
    "The year {year} is remembered for {nominal}.", "People still speak of {nominal} in {year}.",
    "The records give {year} as the year of {nominal}.", "{Nominal} came in {year}.", "As the almanac says, {past} in {year}.",
    "Most of us remember how {past} in {year}.",
)
