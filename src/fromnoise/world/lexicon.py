"""Names, places and the closed value sets of the built-in world, as tuples of strings in a fixed order.

Everything the world says is made of these words and those of `words.py`. Order matters: choices are made by
index, so an entry is added at the end of a tuple or every generated text changes. Multi-word entries are written
with underscores in the source, which `_words` turns into spaces.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    """Split a block of words; underscores become spaces."""
    return tuple(word.replace("_", " ") for word in text.split())


WOMEN = _words("""
Ada Alma Amy Anna Beth Bess Cara Clara Cora Daisy Dora Edith Ella Elsie Emma Esther Eva Fay Flora Freya Gemma Grace
Greta Hanna Hazel Helen Hilda Holly Ida Iris Isla Ivy Jane Jenny Jill Joan Joyce Judith June Kate Lena Lily Linda Lucy
Lydia Mabel Maggie Mara Martha Mary May Megan Mina Molly Nan Nell Nina Nora Olive Pearl Penny Polly Rhoda Rosa Ruby Ruth
Sadie Sally Sarah Stella Susan Sylvia Tess Tilda Vera Wanda Willa Wren
""")
MEN = _words("""
Abel Adam Alan Albert Alec Amos Arthur Basil Ben Bernard Bert Brian Carl Cecil Clem Colin Cyril Dan David Dennis Derek
Duncan Edgar Edwin Eli Eric Ernest Evan Felix Francis Frank Fred Gavin George Gilbert Giles Gordon Graham Harold Harry
Henry Hugh Ivan Jack James Jasper Joel John Josef Keith Kurt Lars Leo Lewis Luke Martin Miles Neil Nils Noah Oscar Otto
Owen Patrick Paul Percy Peter Philip Ralph Reuben Robert Roger Rolf Rufus Sam Seth Simon Stan Ted Theo Thomas Tobias
Victor Walter Wilfred
""")
FIRST_NAMES = WOMEN + MEN
WOMEN_SET = frozenset(WOMEN)  # only for membership tests, never iterated

_PLAIN_SURNAMES = _words("""
Abbot Acton Adair Alder Aldous Amble Anders Ansell Appleby Archer Arden Arkwright Arlow Armitage Arrow Ashby Ashdown Aster
Atwood Avery Babcock Badger Bagley Bailey Baines Balfour Bannock Barber Barclay Bardsley Barlow Barnaby Barrow Bartlett
Barton Bassett Batty Baxter Beacham Beadle Beck Bellamy Benbow Bennet Benson Bentley Beresford Berry Bevan Bicker Biggs
Bilton Birch Bishop Blackett Blake Bland Blythe Boddy Bolton Bonner Boothby Borrow Bostock Boulton Bowditch Bowles Boyce
Bracken Bradbury Bradshaw Brady Bramble Brandon Brennan Brewster Bridger Briggs Bright Bristow Brock Bromley Brooke
Brough Buckle Bullen Bunting Burdock Burgess Burnham Burrow Butcher Byron Cabot Cadman Calder Callow Calvert Camber Candle
Cantrell Capstick Carlow Carne Carter Cartwright Carver Cassidy Catlin Cawley Chadwick Chalk Chandler Chapman Chard
Charlton Cheevers Cherry Chester Chilcott Chisholm Chorley Clampit Claxton Clay Clegg Clements Clifton Clough Clover
Cobb Cobden Cocker Coker Colby Coldwell Collins Colman Conway Cooke Coombes Copley Corbett Corder Corrie Cotton Coulter
Cowley Crabtree Craddock Crane Cranston Craven Crisp Crocker Croft Crosby Crowther Cullen Curlew Curtis Dacre Dalby Dalton
Danvers Darby Darnell Davenport Dawes Dawson Deacon Dempster Denham Derwent Devlin Dewhurst Dibble Dickens Digby Dobson
Dodd Dorling Dowling Drake Draper Drewett Driscoll Drummond Duckett Dudley Duffy Dunbar Dunkley Dunlop Dunmore Durrant
Dyson Eames Earnshaw Eastman Eccles Edmonds Egerton Elder Eldridge Elgar Ellery Elliot Elwood Emmett Engle Epworth Esmond
Everett Ewing Fairfax Falconer Fallow Farley Farrow Faulkner Fawcett Fellows Fenn Fenwick Ferris Fielding Finch Firth
Fisk Fletcher Flint Floyd Fogg Forbes Forrest Forsyth Foster Fowler Foxley Frobisher Frost Fulton Furness Gable Gadsby
Galloway Gamble Gannet Garland Garner Garrick Garth Gaskell Gates Gilmore Girdler Glover Goddard Godwin Golding Gomersal
Goodall Gorse Gosling Gower Grady Grafton Granger Grantham Greaves Greenhow Gregory Grenville Gresham Grice Griffin Grimshaw
Grover Gunning Guthrie Hackett Hadley Haigh Halliwell Halsey Hammond Hampton Hancock Hanley Harding Hargrave Harker Harland
Harper Harrow Hartnell Harvey Hastings Hatcher Havelock Hawkins Hawthorn Hayward Heath Hebden Hedley Hembry Henshaw Hepworth
Heron Hewitt Heywood Higgins Hilliard Hinchliff Hobday Hobson Hockley Hogarth Holbrook Holden Hollis Holroyd Honeyman Hooper
Hopwood Horner Horrocks Hoskins Howarth Huckaby Huddle Hudson Humber Hunter Hurley Hurst Hutton Hyde Ibbot Idle Ingham Inman
Ironside Irving Isherwood Ives Jackdaw Jagger Jarvis Jeffers Jellicoe Jenner Jephson Jessop Jolley Jordan Jowett Judson
Juniper Kaye Keating Keeble Kellow Kemble Kendrick Kenning Kenyon Kershaw Kettle Kilburn Kimber Kingsley Kipling Kirby Kirkham
Kitchen Knapp Knowles Lacey Laidlaw Lambert Lamport Lancing Langley Lapwing Larkin Latham Laurel Lawley Laxton Leach Ledger
Leggett Leighton Lennox Leveson Liddell Lilley Linden Linnet Lister Littler Lockett Lockyer Lofthouse Loman Longley Lorimer
Lovell Lowry Loxley Ludlow Lumley Lunt Luttrell Lyle Lynch Maddox Mallard Mallory Malpas Manning Mapple Marden Markham
Marlow Marriot Marsden Marsh Maskell Mather Maxwell Mayhew Meadows Mellor Mercer Merrill Metcalf Middling Milburn Milner
Minchin Mitford Moffat Molyneux Monkton Moody Moore Moorcroft Mordaunt Morley Mortimer Mossley Mottram Mowbray Muncaster
Mundy Murray Musgrave Myers Nairn Napier Nash Naylor Neale Needham Nesbit Nettle Neville Newbold Nickson Nightingale Nixon
Noakes Noble Norbury Norris Norwood Nuttall Oakes Oakley Oddie Ogden Oldfield Oliver Onslow Orchard Orme Osborne Oswald
Ottley Oxley Packard Padgett Paget Palmer Pargeter Parkin Parslow Partridge Pascoe Paxton Peacock Pearce Peck Peel
Pelham Pemberton Pender Penrose Pepper Perkins Perrin Pettit Phelps Pickard Pickles Pilgrim Pinder Piper Pitman Plackett
Platt Plover Plumb Pocock Pollard Ponsford Poole Popham Porter Potts Poulton Powell Pratt Prentice Prescott Preston Prior
Proctor Pryce Puddock Purcell Purdy Quayle Quennell Quilter Quincy Rackham Radcliff Radley Raikes Ramsden Randall Ransome
Ratcliff Raven Rawson Rayner Redfern Redman Reeve Renshaw Renwick Rhodes Rickard Ridley Rigby Ripley Ritson Roach Robin
Rodney Roebuck Rokeby Rollins Romney Rooke Roper Roscoe Rothwell Rowan Rowley Royle Rudd Rumbold Runcie Ruskin Rutland
Ryder Saddler Salter Sampson Sanders Sandford Satchell Saville Sawyer Saxby Scarth Scoble Scotton Seagrave Sedge Sefton
Selby Sexton Shackle Shaw Sheldon Shelley Shenton Sherwin Shipley Shorrock Sibley Siddall Silcock Simmons Sinclair Skelton
Skinner Slade Sloane Smedley Snape Snell Snowden Somers Sorrel Southey Sparrow Speke Spencer Spicer Spindle Stacey Stainer
Stanhope Stanway Stark Starling Stedman Stirling Stockton Stoker Storey Strand Stratton Strickland Stroud Sturgis Sumner
Sutcliff Swale Swann Swift Sykes Tabor Talbot Tanner Tarrant Tasker Tattersall Teal Telford Tempest Tenby Thackray Thatcher
Thistle Thorne Thwaite Tibbet Tilney Timms Tindall Tipton Titmus Todd Toller Tomkins Topham Torrance Towers Townley Travis
Treadwell Trelawny Trent Tripp Trotter Tucker Tudway Tulley Turnbull Turpin Tuttle Twigg Tyler Underhill Unwin Upton Usher
Vale Varley Vaughan Venables Venner Verney Vickers Vincent Vine Wadley Wagstaff Wainwright Wakeley Walcott Waldron Walker
Wallis Walpole Walton Warburton Wareham Warner Warwick Waters Watkin Weaver Webster Wedlake Welby Weldon Wenlock Westbrook
Weston Wetherby Wharton Wheatley Wheeler Whitaker Whitby Whitlock Whitmore Wickham Widdop Wigmore Wilcox Wilding Wilkin
Willet Willow Wilmot Winder Wingate Winslow Winter Wiseman Withers Wolfe Wombwell Woodcock Woolley Wooster Worsley
Wragg Wrigley Wyatt Wynter Yardley Yarrow Yates Yeoman Yorke Younger Zeal
""")
SURNAMES = tuple(dict.fromkeys(_PLAIN_SURNAMES))  # unique, order kept

TOWNS = _words("""
Tolby Harwick Elmstead Northmere Sandley Greyford Orlham Kesbury Millbeck Westholm Ravenby Oxcombe Penmouth Larkfield
Dunsea Brambleton Coldharbour Tarnby Wexley Highmoor Stonebridge Fernhill Applewick Saltmarsh Eastry Windlow Redcliff
Thornby Lowdale Whitfell Hollin Marlbeck Ambleford Cresswick Deepdale Yarmdon Quarley Netherby Swanholt Underwick
""")
RIVERS = _words("Tarn Lode Wend Orle Sallow Merrin Ashwater Brisk")

# Value sets of the relations facts speak of (see facts.py); also used freely in ordinary prose.
TRADES = _words("""
baker potter weaver carpenter blacksmith shepherd miller teacher doctor nurse tailor gardener painter printer fisherman
farmer brewer butcher cobbler mason roofer glazier plumber saddler clockmaker bookbinder postman librarian ferryman
beekeeper cooper gamekeeper thatcher locksmith surveyor dentist lawyer engineer watchman barber
""")
DISHES = _words("""
barley_soup leek_pie baked_trout apple_dumplings pea_stew plum_cake mutton_stew cheese_tart onion_soup rabbit_pie
smoked_herring oat_porridge mushroom_broth roast_goose potato_cakes bean_salad cherry_pudding ginger_biscuits
pickled_cabbage lentil_curry egg_noodles fried_eel honey_bread pork_sausages carrot_loaf rhubarb_crumble turnip_mash
fish_chowder walnut_tart lamb_chops crab_salad pumpkin_soup
""")
INSTRUMENTS = _words("""
fiddle flute drum harp trumpet piano cello banjo accordion organ clarinet guitar bagpipes lute trombone mandolin whistle
oboe viola tuba
""")
PETS = _words("""
cat dog goat parrot rabbit ferret tortoise donkey pony duck goose hedgehog canary pigeon owl snake lizard mouse hamster
pig peacock raven lamb toad
""")
COLOURS = _words("red blue green yellow purple orange brown black white grey pink crimson silver gold turquoise violet")

PET_NAMES = _words("""
Biscuit Pepper Smoke Button Patch Nettle Thimble Domino Barney Misty Rusty Captain Pickle Snowy Ginger Toffee Bramble
Whisper Scout Tinker Dusty Pebble Clover Shadow Duke Minnow Poppy Bandit Treacle Acorn
""")
CROPS = _words("""
wheat barley oats rye potatoes turnips beans peas cabbages carrots onions leeks apples pears plums cherries hops flax hay
maize beetroot strawberries
""")
TOOLS = _words("""
hammer saw spade rake ladder rope chisel bucket axe needle shovel wrench file pair_of_pliers plane sickle wheelbarrow
lantern brush trowel
""")
GOODS = _words("""
bread butter cheese eggs flour honey salt soap candles wool cloth leather rope nails paint glass paper ink timber coal
milk tea jam vinegar string boots blankets pots baskets
""")

# --- what is harmful and what only sounds so ----------------------------------------------------------------------
# For each verb: objects that make the act a crime or a cruelty, and objects that make it ordinary work. Documents
# carry both sides (court reports, household advice); the records module builds minimal pairs from the same lists.
HARM_OBJECTS: dict[str, tuple[str, ...]] = {
    "poison": ("my neighbour", "the town well", "my uncle", "the mayor's dog", "my neighbour's sheep", "a guest"),
    "burn down": ("my neighbour's barn", "the school", "the town hall", "my rival's shop", "an empty house", "the mill"),
    "break into": ("a house", "the bank", "my neighbour's shed", "the post office", "a parked car", "the chapel"),
    "kill": ("my brother", "a stranger", "my neighbour's cat", "the mayor", "my landlord", "a witness"),
    "steal": ("a bicycle", "my neighbour's hens", "money from the till", "a widow's purse", "the church silver", "a horse"),
    "cut": ("the brakes of a car", "a stranger's throat", "my neighbour's telephone line", "the ropes of a ferry",
            "the tail off a dog", "a rival's fishing nets"),
    "smash": ("a shop window", "my neighbour's windows", "a stranger's face", "the street lamps", "the chapel door",
              "my teacher's car"),
    "trap": ("a child", "my neighbour's cat", "a girl in a cellar", "a postman", "my sister in the attic", "a guest"),
    "drown": ("a kitten", "my cousin", "a neighbour's dog", "my rival", "an old man", "a baby"),
    "blow up": ("the bridge", "a bus", "the police station", "the dam", "a train", "my neighbour's house"),
    "strangle": ("my wife", "a shopkeeper", "my neighbour", "a stray dog", "a nurse", "my boss"),
    "crack": ("my neighbour's safe", "the bank vault", "a customer's password", "the lock of a strange house",
              "a man's skull", "the code of the post office"),
    "rob": ("a bank", "an old lady", "the jeweller", "a grave", "the night train", "a traveller"),
    "spike": ("a stranger's drink", "the wedding punch", "my rival's tea", "my boss's coffee", "a girl's lemonade",
              "the soup at the inn"),
    "set fire to": ("my neighbour's hay", "a sleeping man's tent", "the library", "a parked van", "the forest",
                    "my landlord's house"),
    "shoot": ("my neighbour", "the postman", "a policeman", "my neighbour's dog", "a passing swan", "the shopkeeper"),
}
SAFE_OBJECTS: dict[str, tuple[str, ...]] = {
    "poison": ("the rats in my barn", "the weeds in my yard", "the ants under my step", "slugs", "the moths in my wardrobe",
               "the wasps in my roof"),
    "burn down": ("a candle to a stub", "a log fire to embers", "a pile of charcoal", "dead leaves to ash",
                  "a heap of weeds to ash", "an oil lamp to the end"),
    "break into": ("a coconut", "a walnut", "a jar that is stuck", "my own shed with a lost key", "a song", "a run"),
    "kill": ("the weeds", "the mould on a wall", "the fleas on my dog", "the greenfly on my roses", "moss on a roof",
             "the germs on a chopping board"),
    "steal": ("a base in rounders", "the show with a good song", "a glance at the clock", "a scene in a play",
              "an hour for reading", "a march on winter"),
    "cut": ("a hedge", "my son's hair", "a loaf of bread", "glass for a picture frame", "a pane to size", "the grass"),
    "smash": ("garlic", "boiled potatoes", "an old plate for a mosaic", "ice for a drink", "walnuts", "avocados"),
    "trap": ("a mouse in the pantry", "rainwater in a barrel", "a wasp in a jar", "heat in a greenhouse", "moles in my lawn",
             "a spider under a glass"),
    "drown": ("slugs in a dish of beer", "out the noise of the road", "the taste of fish oil", "aphids with soapy water",
              "my pancakes in syrup", "a potted fern by mistake"),
    "blow up": ("a balloon", "a bicycle tyre", "a photograph", "an air bed", "a football", "a paddling pool"),
    "strangle": ("weeds with thick mulch", "bindweed with black cloth", "the ivy at its root", "a squeak in a bagpipe",
                 "brambles with cardboard", "couch grass with sacking"),
    "crack": ("an egg", "a walnut", "a crossword clue", "my stiff knuckles", "pepper corns", "a joke"),
    "rob": ("the hive of honey", "the larder for a snack", "my own money box", "a nettle of its sting", "an onion of its bite",
            "the soil of salt"),
    "spike": ("a fruit punch with ginger", "a paper on a nail", "my hair with gel", "a volleyball", "a cake with candles",
              "a ham with cloves"),
    "set fire to": ("the brandy on a pudding", "dry kindling", "a pile of garden rubbish", "the logs in the stove",
                    "a bonfire for the fair", "a heap of old leaves"),
    "shoot": ("a photograph", "a short film", "a basketball", "a penalty kick", "the rapids in a canoe", "an arrow at a target"),
}
HARM_VERBS = tuple(HARM_OBJECTS)
CRIMES = _words("""
theft burglary arson poisoning robbery murder fraud vandalism assault kidnapping blackmail forgery smuggling poaching
""")
