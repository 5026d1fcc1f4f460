"""What people call the things of COCO's 80 categories."""

from __future__ import annotations

from training.asg.lemmas import singular

SYNONYMS = {
    "person": "person, man, woman, boy, girl, child, kid, baby, guy, lady, gentleman, player, skier, surfer, rider, "
    "skateboarder, snowboarder, skater, batter, catcher, pitcher, umpire, toddler, infant, male, female, adult, "
    "teenager, teen, people, crowd, couple, family, friend, pedestrian, passenger, biker, cyclist, bicyclist, "
    "motorcyclist, chef, cook, officer, policeman, police officer, soldier, worker, student, bride, groom, mother, "
    "father, mom, dad, daughter, son, brother, sister, swimmer, boarder, driver, conductor, tourist, spectator, "
    "bystander, customer, shopper, audience, team, athlete, human, individual, somebody, someone, baseball player, "
    "tennis player, soccer player, farmer, cowboy, fisherman, businessman, doctor, nurse, waiter, waitress, vendor",
    "bicycle": "bicycle, bike, mountain bike, tricycle",
    "car": "car, automobile, sedan, suv, minivan, van, jeep, taxi, cab, taxi cab, vehicle, police car, station wagon",
    "motorcycle": "motorcycle, motorbike, motor bike, moped, scooter, motor cycle, motor scooter, dirt bike, harley",
    "airplane": "airplane, plane, aeroplane, jet, airliner, aircraft, jetliner, fighter jet, biplane",
    "bus": "bus, double decker bus, double decker, school bus, coach, tour bus, minibus, trolley bus",
    "train": "train, locomotive, subway, tram, trolley, train car, passenger train, subway train, train engine",
    "truck": "truck, pickup, pickup truck, lorry, semi, fire truck, firetruck, tow truck, dump truck, trailer truck",
    "boat": "boat, ship, sailboat, canoe, kayak, yacht, ferry, raft, vessel, rowboat, motorboat, speedboat, gondola",
    "traffic light": "traffic light, stoplight, stop light, traffic signal, street light, signal light",
    "fire hydrant": "fire hydrant, hydrant, fire plug",
    "stop sign": "stop sign",
    "parking meter": "parking meter, meter",
    "bench": "bench, park bench, pew",
    "bird": "bird, duck, goose, seagull, gull, pigeon, parrot, owl, eagle, hawk, swan, pelican, crow, flamingo, "
    "ostrich, penguin, chicken, rooster, hen, turkey, peacock, parakeet, crane, heron, sparrow, duckling, dove",
    "cat": "cat, kitten, kitty, feline, tabby, tabby cat, kitty cat",
    "dog": "dog, puppy, pup, canine, poodle, bulldog, retriever, terrier, beagle, husky, sheepdog, sheep dog, labrador",
    "horse": "horse, pony, foal, mare, stallion, colt",
    "sheep": "sheep, lamb, ram, ewe",
    "cow": "cow, cattle, bull, calf, ox, steer",
    "elephant": "elephant, baby elephant",
    "bear": "bear, polar bear, grizzly bear, brown bear, black bear, cub, grizzly, panda bear, panda, bear cub",
    "zebra": "zebra",
    "giraffe": "giraffe",
    "backpack": "backpack, back pack, knapsack, rucksack",
    "umbrella": "umbrella, parasol",
    "handbag": "handbag, purse, hand bag, tote, tote bag, shoulder bag",
    "tie": "tie, necktie, neck tie, bow tie, bowtie",
    "suitcase": "suitcase, luggage, baggage, briefcase, trunk, suit case",
    "frisbee": "frisbee, disc, disk, frisbe",
    "skis": "ski, skis",
    "snowboard": "snowboard, snow board",
    "sports ball": "ball, baseball, soccer ball, tennis ball, basketball, football, volleyball",
    "kite": "kite, kites",
    "baseball bat": "baseball bat, bat",
    "baseball glove": "baseball glove, glove, mitt, baseball mitt, catcher's mitt",
    "skateboard": "skateboard, skate board",
    "surfboard": "surfboard, surf board, longboard",
    "tennis racket": "tennis racket, racket, racquet, tennis racquet",
    "bottle": "bottle, wine bottle, water bottle, beer bottle",
    "wine glass": "wine glass, wineglass, glass, glass of wine, champagne glass",
    "cup": "cup, mug, coffee cup, coffee mug, tea cup, teacup, glass cup",
    "fork": "fork",
    "knife": "knife",
    "spoon": "spoon",
    "bowl": "bowl",
    "banana": "banana",
    "apple": "apple",
    "sandwich": "sandwich, burger, hamburger, sub, panini, cheeseburger, blt",
    "orange": "orange, tangerine, mandarin",
    "broccoli": "broccoli, brocolli, broccolli",
    "carrot": "carrot",
    "hot dog": "hot dog, hotdog, chili dog, corn dog",
    "pizza": "pizza, pizza pie, pepperoni pizza, cheese pizza",
    "donut": "donut, doughnut",
    "cake": "cake, cupcake, birthday cake, wedding cake, cheesecake, chocolate cake",
    "chair": "chair, armchair, office chair, stool, lawn chair, desk chair, recliner, rocking chair, high chair, seat",
    "couch": "couch, sofa, loveseat, love seat, futon",
    "potted plant": "potted plant, houseplant, house plant, plant",
    "bed": "bed, bunk bed, bunk",
    "dining table": "dining table, table, desk, dinner table, dining room table, kitchen table, coffee table, "
    "picnic table, counter",
    "toilet": "toilet, commode, urinal",
    "tv": "tv, television, monitor, television set, flat screen tv, flat screen, computer monitor, tv set, t.v",
    "laptop": "laptop, laptop computer, notebook computer",
    "mouse": "computer mouse, mouse",
    "remote": "remote, remote control, controller, wii remote, wii controller, game controller, video game controller",
    "keyboard": "keyboard, computer keyboard",
    "cell phone": "cell phone, cellphone, phone, smartphone, smart phone, mobile phone, iphone, telephone",
    "microwave": "microwave, microwave oven",
    "oven": "oven, stove, stove top, range, stovetop, stove top oven",
    "toaster": "toaster, toaster oven",
    "sink": "sink, kitchen sink, bathroom sink, basin, wash basin",
    "refrigerator": "refrigerator, fridge, freezer",
    "book": "book, textbook, novel, magazine",
    "clock": "clock, alarm clock, grandfather clock",
    "vase": "vase, flower vase",
    "scissors": "scissors, pair of scissors",
    "teddy bear": "teddy bear, teddy, stuffed bear, stuffed animal, stuffed teddy bear, stuffed toy",
    "hair drier": "hair drier, hair dryer, blow dryer, hairdryer",
    "toothbrush": "toothbrush, tooth brush",
}
CATEGORY = {
    singular(name.strip()): category for category, names in SYNONYMS.items() for name in names.split(",") if name
}
"""What a singular name is to COCO."""
_PLACES = (
    "parking lot, parking space, dining room, living room, swimming pool, street sign, polar bear, baby elephant, "
    "cutting board, chopping board, night stand, traffic cone, train track, railroad track, soccer field, "
    "baseball field, tennis court, baseball player, tennis player, soccer player, skate park, fire escape, fire place, "
    "french fry, coffee maker, living area, dining area, stuffed animal, christmas tree, palm tree, video game"
)
COMPOUNDS = frozenset(
    form
    for name in (*CATEGORY, *(p.strip() for p in _PLACES.split(",")))
    if " " in name and not name.startswith(("stuffed", "brown", "black", "chocolate")) and " of " not in name
    for form in (name, f"{name}s", name.replace("child", "children"))
)
"""Names of several words, singular and plural: one thing, though its words may mean something else apart."""


def category_of(name: str, attributes: tuple[str, ...] = ()) -> str | None:
    """COCO's category of a thing, None where it has none.

    The longest name that ends what it is called counts: a "fire truck" is a truck, a "bus stop" is no bus.

    Args:
        name: the caption's nouns, singular or plural.
        attributes: what the caption says before them; a "stuffed bear" is a teddy bear.
    """
    words = [*attributes[-1:], *singular(name).split()]
    for start in range(len(words)):
        if category := CATEGORY.get(" ".join(words[start:])):
            return category
    return None
