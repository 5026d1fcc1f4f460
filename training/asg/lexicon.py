"""The closed word classes of caption English, and the open ones as far as captions need them.

Nouns are not listed: what is no other word is one. The open classes were filled by looking at which words FACTUAL's
training phrases (Li et al., 2023) and COCO's captions use most.
"""

from __future__ import annotations

DETERMINERS = frozenset(
    "a an the this that these those its his her their my your our some any each every another both all many several "
    "few most other more enough no various numerous".split()
)
NUMBERS = {
    word: str(value)
    for value, word in enumerate("one two three four five six seven eight nine ten eleven twelve".split(), 1)
}
PRONOUNS = frozenset("it them him he she they himself herself itself themselves".split())
RELATIVES = frozenset("that which who whose where".split())
CONJUNCTIONS = frozenset({"and", "or"})
BREAKS = frozenset("while as but because when after before so if then , . ; : ! ? -".split())
"""Where a new clause begins; a comma may join a list instead."""
AUXILIARIES = frozenset("is are was were be being been am 's're seems appears looks".split())
FILLERS = frozenset("very just too also not still quite really there here can could would will".split())
"""Words that say nothing of what is in the picture."""

PREPOSITIONS = frozenset(
    "on in at by with under over near of behind above below beneath beside besides between through across around along "
    "against inside outside from to into onto for off among amongst down up towards toward past next underneath "
    "alongside beyond atop upon within without during like amid opposite about".split()
)
PARTICLES = frozenset("out away together forward ahead apart alongside".split())
"""They belong to the verb before them, as in "sticking out"; elsewhere they say nothing."""
PHRASES = (
    "on top of",
    "in front of",
    "in back of",
    "on the back of",
    "on back of",
    "on the side of",
    "on side of",
    "on the sides of",
    "on both sides of",
    "at the side of",
    "by the side of",
    "on the edge of",
    "on the corner of",
    "at the corner of",
    "on the bottom of",
    "at the bottom of",
    "at the top of",
    "on the top of",
    "in the middle of",
    "in middle of",
    "in the center of",
    "at the end of",
    "on the end of",
    "in the back of",
    "at the back of",
    "to the left of",
    "to the right of",
    "on the left of",
    "on the right of",
    "in between",
    "in the corner of",
    "on the front of",
    "at the front of",
    "in the front of",
    "on the inside of",
    "inside of",
    "outside of",
    "next to",
    "close to",
    "out of",
    "off of",
    "across from",
    "away from",
    "ahead of",
    "because of",
    "full of",
    "along with",
    "along the side of",
    "along side of",
    "in the front part of",
    "on the left side of",
    "on the right side of",
    "on the other side of",
    "on the front of",
    "side by side with",
    "on the other side of",
    "up to",
    "up against",
    "down to",
    "up on",
    "down on",
    "up in",
    "over to",
    "on to",
    "in to",
)
"""Prepositions of several words, articles included."""
COLLECTIVES = frozenset(
    "bunch couple lot lots group groups pair pairs herd flock pile piles piece pieces slice slices row rows line stack "
    "set variety number crowd bunches collection team sort kind type kinds types array assortment series cluster "
    "bit bits patch patches body part top side sides front back end edge middle view picture photo image close-up "
    "closeup photograph".split()
)
"""Before "of" they say how much there is of something, or how it is seen; the thing is what comes after."""
PARTS = frozenset("top side sides front back end edge middle part bit bits patch patches".split())
"""Collectives that name a part where something is not: "the front of the bus" has a front."""

CONTAINERS = frozenset(
    "plate bowl glass cup bag basket box bottle bouquet vase tray dish mug jar can cart pan pot".split()
)
"""Before "of" they hold what comes after; of other things what comes after is the whole."""

ADJECTIVES = frozenset(
    """
    white black blue green red brown yellow gray grey orange pink purple tan silver gold golden beige maroon turquoise
    teal blond blonde colorful colored colored multi-colored multicolored dark light bright pale clear transparent plaid
    large small big little tall short long tiny huge giant high low wide narrow thick thin deep shallow massive medium
    medium-sized mini miniature enormous fat skinny slim
    wooden metal plastic stone brick concrete cement glass paper leather marble steel stainless iron gravel rubber brass
    chrome porcelain wire cardboard metallic ceramic wicker granite asphalt denim wool stucco
    old young new older elderly adult baby adolescent modern antique vintage ancient middle-aged rusty teenage
    round square oval rectangular circular flat curved sharp pointy pointed straight crooked spiral vertical horizontal
    open closed empty full wet dry dirty clean messy neat bare covered dead fake artificial real fresh ripe raw cooked
    hot cold warm cool cloudy sunny overcast rainy snowy foggy hazy stormy rocky sandy grassy muddy icy leafy dusty
    leafless shady lush bushy hairy furry fluffy puffy soft hard smooth rough shiny reflective shaggy curly wavy
    striped spotted floral patterned checkered polka-dot decorative ornate fancy plain blurry faded visible dim
    stuffed folded parked painted fried baked sliced grilled glazed chopped dried framed lit paved tiled tinted cracked
    broken torn worn stacked potted mounted mirrored cluttered crowded busy quiet calm lonely alone lone single double
    double-decker double-decked triple multiple multi-story upper lower left right front rear back top bottom outer
    inner middle same similar different
    happy sad smiling sleeping cute pretty beautiful nice lovely gorgeous handsome adorable good great bad funny silly
    famous strange weird odd interesting delicious tasty healthy special personal professional commercial public private
    residential urban rural industrial military electric electrical electronic digital indoor outdoor male female asian
    african indian american chinese japanese european danish hispanic grizzly polar wild domestic tropical evergreen
    wooded pine first second third last
    ready able asleep awake visible alive upright naked topless barefoot shirtless bald bearded pregnant formal casual
    elaborate simple heavy strong powerful loose tight steep hilly distant
    larger smaller bigger taller shorter juicy crispy wood toy dirt tile tin cloth straw farm office chain-link
    nearby overhead facial sheer flowered checked lined tilted
    one-way no-parking king-sized
    """.split()
)

VERBS = frozenset(
    """
    come sit stand hold wear ride skateboard
    walk play lay lie eat look hang park fly cover attach surround lean reflect hit swing line
    fill drive grow stick run surf ski watch carry talk pull rest go make tie throw support face touch wrap graze mount
    place connect catch float pose top sleep use cross point wait take contain jump stop lead serve sniff wash separate
    enjoy cut work overlook sell build grab display fall pass skateboard put swim border leave scatter suspend push dock
    feed drape help block crash approach shine drink follow write balance stack pet perch stretch grip match reach print
    locate pour shake herd decorate belong emerge climb secure hover move lick guide depict read kick turn get handle
    roll enclose release submerge smile maneuver spread smell kneel mix soar bend hide enter bite protect draw inspect
    stroll transport squeeze curl pile pose bat poke splash land wade spin gaze operate relax blanket shoot snowboard
    stare tow perform nuzzle press lounge hike tilt extend scratch insert fold chase slide pave gather collect greet
    clap have travel skate adorn show give sail bring prepare cook brush flip toss dance hug kiss cuddle observe examine
    load unload board dress crouch squat bow dangle lift raise rise wade splash row paddle race pack arrange set seat
    position situate gather cluster crowd huddle mingle chat laugh sing speak type text study celebrate peek peer chew
    munch drag plug light tend slice chop bake grill blow open close tuck prop lounge nap snuggle cradle clutch grasp
    compete practice attempt try prepare begin start keep see view shave comb groom check fix repair pick plow pedal
    steer trot gallop roam wander stroll march parade cruise descend land depart arrive flow crash break occupy feature
    include hunch nestle pose dine sip taste sprinkle drip melt frost garnish
    """.split()
)
IRREGULAR = {
    form: base
    for base, forms in {
        "sit": "sat",
        "stand": "stood",
        "hold": "held",
        "wear": "wore worn",
        "ride": "rode ridden",
        "lie": "lying lain",
        "lay": "laid",
        "eat": "ate eaten",
        "hang": "hung",
        "fly": "flew flown",
        "drive": "drove driven",
        "grow": "grew grown",
        "stick": "stuck",
        "run": "ran",
        "go": "went gone goes",
        "make": "made",
        "tie": "tying",
        "throw": "threw thrown",
        "catch": "caught",
        "take": "took taken",
        "lead": "led",
        "sell": "sold",
        "build": "built",
        "fall": "fell fallen",
        "swim": "swam",
        "leave": "left",
        "feed": "fed",
        "write": "wrote written",
        "shake": "shook shaken",
        "get": "got gotten",
        "hide": "hid hidden",
        "bite": "bit bitten",
        "draw": "drew drawn",
        "shoot": "shot",
        "have": "has had",
        "show": "shown",
        "give": "gave given",
        "bring": "brought",
        "rise": "rose risen",
        "see": "saw seen",
        "break": "broke broken",
        "light": "lit",
        "kneel": "knelt",
        "swing": "swung",
        "bend": "bent",
        "blow": "blew blown",
    }.items()
    for form in forms.split()
}
ING_NOUNS = frozenset(
    """
    building clothing ceiling railing painting wedding evening morning string king ring wing thing awning frosting icing
    topping dressing lighting writing siding flooring paneling fencing bedding covering opening landing crossing
    drawing sibling duckling spring sting swing filling stuffing seating parking dining living housing carving marking
    setting clearing feeling nothing something anything everything meeting lettering molding pudding
    """.split()
)
PLURAL_IRREGULAR = {
    "men": "man",
    "women": "woman",
    "children": "child",
    "people": "person",
    "feet": "foot",
    "teeth": "tooth",
    "mice": "mouse",
    "geese": "goose",
    "sheep": "sheep",
    "knives": "knife",
    "leaves": "leaf",
    "shelves": "shelf",
    "wolves": "wolf",
    "loaves": "loaf",
    "scarves": "scarf",
    "halves": "half",
    "calves": "calf",
    "buses": "bus",
    "busses": "bus",
    "lenses": "lens",
    "oxen": "ox",
    "skis": "ski",
    "ties": "tie",
    "pies": "pie",
    "cookies": "cookie",
    "movies": "movie",
    "brownies": "brownie",
    "selfies": "selfie",
    "shoes": "shoe",
    "toes": "toe",
    "canoes": "canoe",
}
UNINFLECTED = frozenset(
    "glasses sunglasses scissors jeans pants shorts goggles headphones tennis grass glass dress bus gas class cross "
    "moss mattress waitress lens canvas series species clothes binoculars pliers overalls less various christmas "
    "boss compass hostess actress princess wilderness cactus octopus".split()
)
ANIMATE = frozenset(
    """
    man woman person boy girl child kid baby guy lady player skier surfer skateboarder snowboarder rider driver
    cat dog horse cow sheep elephant bear zebra giraffe bird duck goose animal puppy kitten lamb goat pony calf
    toddler batter catcher pitcher umpire player adult gentleman officer policeman chef cook waiter couple crowd group
    family team friend mother father daughter son bride groom soldier worker student tourist passenger pedestrian
    skater biker cyclist bicyclist motorcyclist surfer swimmer male female teenager individual monkey lion tiger
    seagull pigeon owl parrot deer fox rabbit herd flock spectator fan bull
    """.split()
)
