"""Word pools by meaning, so that what is said makes sense: `name: word, word, ...`; a line that begins with two
spaces goes on with the pool before it.

A pool is used in templates as `{name}`; `{name+}` gives its plurals (made in scene.py for countable nouns).
"""

from __future__ import annotations

POOLS_TEXT = """
# --- adjectives
adj.person: tall, short, thin, stout, quiet, cheerful, stubborn, kind, proud, shy, clever, careful, lazy, polite, rude, honest, nervous, patient,
  gentle, clumsy, brave, greedy, jealous, lonely, sensible, talkative, absent-minded, hard-working, bald, freckled, sharp-eyed, soft-spoken, gruff,
  restless, generous, strict, modest, vain, curious, grumpy, forgetful, elderly, young, deaf, lame, sunburnt, red-haired, long-legged,
  broad-shouldered, good-natured
adj.feel: tired, glad, angry, hungry, thirsty, cold, worried, ashamed, pleased, sad, afraid, bored, surprised, puzzled, grateful, relieved, homesick,
  sleepy, hopeful, disappointed, uneasy, delighted, embarrassed, impatient, lonely, calm, sick, weary, content, cross, suspicious, miserable,
  excited, stiff, hurt, dizzy
adj.thing: old, new, broken, heavy, small, large, rusty, wooden, cracked, polished, bent, worn, cheap, fine, plain, strange, dusty, painted,
  borrowed, useful, sturdy, crooked, spare, handsome, dented, battered, narrow, round, square, flat, long, short, smooth, rough, clean, dirty,
  ancient, half-finished, second-hand, home-made, ordinary, rare, costly, delicate, shabby
adj.place: quiet, narrow, steep, muddy, crowded, empty, sunny, shady, windy, damp, busy, lonely, pleasant, crooked, cobbled, dark, open, green,
  rocky, dusty, sleepy, ruined, distant, peaceful, noisy, neglected, sheltered, marshy, frozen, tidy
adj.food: fresh, stale, warm, cold, sweet, sour, salty, hot, crisp, burnt, ripe, bitter, tender, tough, creamy, dry, plain, rich, spicy, soft, juicy,
  greasy, smoked, raw, mouldy, home-baked
adj.animal: lame, hungry, tame, wild, old, young, spotted, shaggy, stray, clever, lazy, sleepy, noisy, thin, fat, frightened, stubborn, gentle,
  fierce, half-blind, muddy, playful, greedy, three-legged
adj.weather: cold, wet, windy, mild, hot, foggy, frosty, grey, bright, stormy, dry, sultry, chilly, rainy, clear, icy, dull, fine, sharp, changeable
adj.idea: good, bad, simple, clever, silly, sound, wild, old, sensible, foolish, curious, bold, useful, hopeless, splendid, modest, dangerous, fresh,
  dull, half-baked
adj.sound: loud, faint, sharp, low, strange, sudden, dull, hollow, distant, soft, shrill, steady
adj.good: good, excellent, fine, splendid, fair, useful, honest, lovely, decent, first-rate, remarkable, sound
adj.bad: bad, poor, dreadful, terrible, shameful, awful, wretched, worthless, cruel, sorry, disgraceful, mean
# --- adverbs
adv.manner: slowly, quickly, carefully, quietly, gladly, angrily, gently, firmly, calmly, eagerly, patiently, clumsily, politely, loudly, softly,
  bravely, sadly, cheerfully, nervously, proudly, thoughtfully, stubbornly, grimly, kindly, neatly, hastily, boldly, awkwardly, gravely, idly,
  steadily, stiffly, warily, wearily, briskly, silently
adv.said: quietly, at last, softly, crossly, kindly, with a smile, with a sigh, with a shrug, in a low voice, without looking up, after a while,
  cheerfully, sharply, slowly, in surprise, gravely, firmly, over a shoulder, from the doorway, between two mouthfuls, with a frown, rather loudly,
  as gently as possible, almost in a whisper, with a laugh, shaking hands all round, in the end, a little too fast, not very kindly,
  in a hoarse voice, under the breath, stiffly, warmly, drily
adv.often: often, seldom, always, usually, sometimes, never, now and then, rarely, as a rule, once a week, every other day, from time to time
adv.often2: often, seldom, always, usually, sometimes, never, rarely
adv.degree: very, rather, quite, so, too, extremely, fairly, a little, surprisingly, terribly, pretty, unusually, somewhat, hardly, more than a little
adv.sent: luckily, unluckily, of course, to be fair, in truth, strangely enough, as usual, for once, after all, in the end, at first, at last,
  by chance, sooner or later, above all, as a result, even so, all the same, in any case, no doubt, perhaps, for some reason, on the whole,
  sure enough, before long, little by little, to tell the truth, as luck would have it, without warning, to make matters worse, once again, in fact
# --- time
time.past: that morning, that evening, the next day, the day before, on Monday, on Tuesday, on Wednesday, on Thursday, on Friday, on Saturday,
  on Sunday, at noon, at dawn, at dusk, before breakfast, after supper, after dark, toward midnight, in the afternoon, in the small hours,
  an hour later, a week later, two days later, a month later, at the end of the week, on market day, on the first day of spring,
  in the middle of the night, on the eve of the fair, during the harvest, at four o'clock, at half past six, early in the morning,
  late in the evening, after church, on washing day, at the stroke of nine, by lamplight, shortly after sunrise, a little before ten,
  for the third time that week, one wet night, in the first week of the new year, at the next full moon, before the shops opened,
  when the whistle blew for noon, within the hour, after the long frost, on the way home
time.span: for an hour, for two days, all morning, all night, for a week, for the rest of the day, until dark, until the lamp went out, till noon,
  for a good while, the whole summer, for most of the winter, for a fortnight, without a break, for nearly a month, till the church clock struck ten,
  half the night, for as long as the light held, from dawn to dusk, for three hours on end, hour after hour, until supper
time.now: every morning, every evening, on market days, in summer, in winter, in spring, in autumn, at weekends, before breakfast, after supper,
  on rainy days, on Sundays, in the evenings, once a year, at harvest time, twice a week, most afternoons, on dark nights, after a hard frost,
  in a dry year, in the week before the fair, whenever the road is open, on the last Friday of the month, as soon as the days grow longer
month: January, February, March, April, May, June, July, August, September, October, November, December
weekday: Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday
season: spring, summer, autumn, winter
small: two, three, four, five, six, seven, eight, nine, ten, eleven, twelve
some: two, three, four, several, a few, half a dozen, many, a dozen, some
ordinal: first, second, third, fourth, fifth, sixth, last
# --- people
kin: brother, sister, uncle, aunt, cousin, father, mother, grandfather, grandmother, nephew, niece, son, daughter
folk: neighbour, stranger, child, widow, traveller, pedlar, soldier, old man, old woman, boy, girl, schoolboy, lodger, customer, apprentice, sailor,
  visitor, farmhand, cook, maid, clerk, student, beggar, bride, pilgrim, policeman, preacher, singer, juggler, waiter, porter, carter, tenant,
  innkeeper, shopkeeper, grocer, drummer, inspector, judge, councillor, mayor, chemist, photographer, tinker, milkmaid, drover
group: the neighbours, the children, the farmers, the councillors, the fishermen, the apprentices, the visitors, the old men by the pump, the band,
  the choir, the market women, the schoolchildren, the passengers, the workers at the mill, the family next door, the whole street, the young people,
  the guests, the shopkeepers, the musicians, the bell-ringers, the shepherds, the bargemen, the weavers
# --- things
thing.small: key, ring, letter, button, coin, candle, cup, knife, spoon, book, lamp, watch, comb, purse, map, whistle, needle, brush, bottle, box,
  basket, jug, plate, pencil, photograph, bell, pipe, mirror, scarf, glove, hat, hammer, bucket, kettle, lantern, notebook, envelope, parcel, ticket,
  umbrella, razor, thimble, tin, jar, handkerchief, marble, locket, medal, brooch, ladle, teapot, saucer, stamp, ball of string, pair of scissors,
  tape measure, nutcracker, padlock, magnifying glass, corkscrew, paintbrush, bar of soap, music box, compass, penknife
thing.big: table, chair, bed, cupboard, ladder, barrel, cart, wheelbarrow, bicycle, boat, stove, chest, bench, clock, gate, fence, loom, trunk,
  sledge, mattress, wardrobe, bookcase, rocking chair, plough, piano, cradle, tent, washing line, carpet, sofa, hen house, beehive, rain barrel,
  signboard, writing desk, lawnmower, dresser, sewing machine, workbench, anvil, handcart, grindstone, wagon, statue
cloth: coat, shirt, jacket, apron, cap, skirt, pair of boots, waistcoat, shawl, dress, jersey, raincoat, pair of trousers, pair of stockings,
  nightshirt, uniform, straw hat, belt, petticoat, cardigan
furniture: table, chair, shelf, cupboard, bench, bed, stool, dresser, desk, bookcase
vehicle: bus, train, cart, bicycle, boat, ferry, wagon, lorry, van, tram, barge, mail coach
material: wood, stone, brick, iron, copper, tin, glass, clay, leather, wool, oak, slate, canvas, brass, plaster, straw, paper, rope, tar, concrete
container: basket, sack, bucket, bowl, barrel, crate, jug, tin, jar, box, pan, drawer, suitcase, bag, trunk, bottle, wheelbarrow
paper: letter, bill, notice, map, newspaper, receipt, list, contract, postcard, ledger, photograph, permit, poem, recipe, diary, will, report,
  telegram, ticket, petition, catalogue, almanac
# --- food
food: bread, cheese, butter, soup, stew, pie, porridge, ham, bacon, fish, eggs, pancakes, dumplings, pudding, jam, honey, plum cake, apple tart,
  biscuits, potatoes, beans, cabbage, onions, mushrooms, sausages, toast, pickles, cream, gingerbread, chestnuts, rice, noodles, trout, roast lamb,
  cold pork, radishes, cherries, pears, strawberries, nuts, lentils, barley broth, herring, custard, oatcakes, raisin buns, marmalade, liver,
  tomatoes, celery, figs
staple: flour, butter, eggs, sugar, milk, cream, honey, oil, breadcrumbs, oats, yeast, cheese, lard, vinegar, stock, rice, raisins, nuts
drink: tea, coffee, milk, cider, water, lemonade, beer, cocoa, plum brandy, ginger beer, buttermilk, apple juice, red wine, mulled wine,
  barley water, nettle tea
fruit: apples, pears, plums, cherries, strawberries, gooseberries, currants, blackberries, quinces, apricots, peaches, raspberries, damsons,
  elderberries
veg: carrots, onions, leeks, beans, peas, cabbages, turnips, potatoes, marrows, beetroots, parsnips, radishes, spinach, lettuce, pumpkins, cucumbers
spice: pepper, salt, cinnamon, cloves, ginger, nutmeg, thyme, sage, mustard, parsley, dill, caraway, rosemary, mint, bay leaves, vinegar
portion: a cup of, two cups of, a pinch of, half a pound of, a spoonful of, three spoonfuls of, a handful of, a little, plenty of, the rest of the,
  a bowl of
# --- nature
wild: fox, badger, hare, owl, crow, otter, deer, weasel, hawk, heron, squirrel, mole, toad, adder, swan, magpie, bat, stoat, wild goose, cuckoo,
  pheasant, kingfisher, rat, salmon
farm: cow, sheep, goat, hen, pig, horse, donkey, goose, duck, mule, bull, calf, cock, turkey, pony, ewe, sow, sheepdog
tree: oak, ash, elm, birch, pear tree, willow, pine, beech, chestnut, apple tree, hawthorn, lime, yew, walnut tree, alder, plum tree, rowan, poplar
flower: roses, daisies, tulips, violets, poppies, lilies, primroses, bluebells, marigolds, daffodils, sunflowers, lavender, foxgloves, geraniums,
  pansies, snowdrops
sky: rain, snow, fog, sun, moon, wind, frost, hail, thunder, cloud, mist, storm
sound: bell, drum, knock, whistle, cry, crash, song, footstep, bark, splash, shout, creak, cough, horn, laugh, rattle, scream, hum, tune
smell: smoke, tar, bread, wet wool, apples, paint, fish, hay, soap, coffee, leather, burnt sugar, lavender, mud, pine, gas, roast onions, candle wax
# --- places
room: kitchen, attic, cellar, parlour, pantry, workshop, hall, bedroom, porch, stable, scullery, landing, study, loft, laundry, nursery
building: church, mill, school, inn, station, bakery, post office, town hall, library, chapel, barn, forge, market hall, warehouse, boathouse,
  theatre, bank, dairy, museum, police station, brewery, hospital, lighthouse, brickworks, tannery, pump house, bath house, almshouse
shop: bakery, ironmonger's, chemist's, grocer's, butcher's, toy shop, bookshop, tailor's, fishmonger's, hat shop, clockmaker's, sweet shop,
  saddler's, florist's, pawnshop, dairy
landmark: bridge, well, fountain, crossroads, market square, churchyard, orchard, pond, quarry, meadow, wood, hill, ford, canal, dam, old wall,
  green, quay, lock, toll gate, water tower, level crossing, stone circle, ruined castle, cattle pen, hop field, gravel pit, bowling green, windmill,
  milestone
street: Mill Lane, Church Street, Bridge Street, Station Road, Market Row, Tanner's Yard, Orchard Lane, Well Street, Chapel Hill, Quay Side,
  Long Lane, Castle Street, Green Lane, Butcher Row, Smithy Lane, Ferry Road, Cross Street, School Lane, Water Street, Pound Lane, Bell Yard,
  Hay Street, North Gate, Kiln Road
place: by the river, in the market, behind the church, at the inn, near the bridge, in the kitchen, under the old oak, at the station, on the hill,
  in the orchard, outside the bakery, along the canal, at the edge of the wood, in the yard, beside the well, on the quay, across the fields,
  in the churchyard, at the crossroads, below the mill, in the library, at the far end of the lane, by the stove, at the back of the shop,
  in the barn, among the apple trees, opposite the town hall, on the stairs, in the shade of a wall, beyond the last houses, in front of the school,
  inside the porch, halfway up the hill, between the stable and the pump, round the corner, at the top of the ladder, in the middle of the square,
  on the steps of the bank, against the garden wall, next to the post office, near the water tower, in the long grass, over the fence, in the attic,
  down by the lock, close to the railway line
dir: to the market, down the lane, up the hill, across the bridge, along the river, through the wood, into town, over the fields, to the station,
  past the church, round the pond, out of the gate, toward the harbour, back to the house, as far as the mill, from door to door, through the rain,
  along the railway line, to the edge of the quarry, across the wet grass, under the arch, down the stone steps, to the top of the tower
# --- abstract
topic: the weather, the price of bread, the new road, the harvest, the fair, the railway, the school, the rent, the old bridge, the wedding,
  the mayor, the flood, the cattle show, the choir, the bus timetable, the state of the roads, the missing sheep, the council's plans, music,
  the war in their grandfathers' time, the ferry, football, the cost of coal, taxes, the new teacher, the street lamps, the well, holidays, dogs,
  the winter of the great frost
event: fair, wedding, concert, auction, harvest supper, cattle show, funeral, dance, chess match, boat race, school play, flower show, christening,
  picnic, town meeting, football match, sheep sale, lantern procession, tug of war, bell-ringing contest, bring-and-buy sale, birthday party,
  puppet show, ploughing match
virtue: patience, honesty, courage, kindness, thrift, good humour, common sense, hard work, tact, modesty, loyalty, curiosity, order, politeness
vice: greed, laziness, vanity, spite, pride, carelessness, envy, haste, gossip, stubbornness, bad temper, meanness
emotion: joy, fear, shame, anger, relief, pity, envy, pride, grief, hope, surprise, boredom, longing, doubt, delight, regret
emotion.to: joy, relief, regret, surprise, delight, boredom, annoyance, amusement, dismay, satisfaction
adj.made: angry, uneasy, glad, curious, nervous, sad, jealous, proud, thoughtful, hopeful, laugh, blush, wonder
trouble: headache, cold, toothache, sore back, cough, debt, leak, quarrel, broken window, blocked drain, late train, lost key, burst pipe, bad debt,
  flat tyre, wasps' nest, power cut, fever, draught, unpaid bill, twisted ankle, smoking chimney
business: shop, farm, mill, inn, workshop, ferry, bakery, forge, dairy, boatyard, bookshop, brewery, printing house, sawmill, smokehouse, rope walk
reason: for want of money, out of habit, for a bet, for the sake of peace, by mistake, out of pity, for the pleasure of it, by order of the council,
  for lack of time, out of spite, in the hope of a reward, on the advice of the doctor, for fear of the dark, against all advice, with great care,
  as a favour, in a hurry, in secret, for no clear reason, half in jest
amount: a little, plenty of, a bag of, a basket of, a pound of, half a pound of, a handful of, a barrel of, a jar of, a whole cartload of,
  the last of the, a few shillings' worth of
"""


def pools() -> dict[str, tuple[str, ...]]:
    """name -> its words, in written order."""
    found = {}
    for line in POOLS_TEXT.replace(",\n  ", ", ").strip().splitlines():
        if not line.startswith("#"):
            name, _, words = line.partition(": ")
            found[name] = tuple(words.split(", "))
    return found
