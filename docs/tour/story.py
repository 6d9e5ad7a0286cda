"""The village of the tour: its people, and the sentences of which its harbour book is made. CC0."""

# ruff: noqa: E501 (a step of a plot is a line)

from dataclasses import dataclass


@dataclass(frozen=True)
class Person:
    """Someone of Saltmarsh. What is said of them here holds in every page, so that it can be learnt."""

    name: str
    she: str
    her: str
    work: str  # "the baker"
    does: str  # "bakes the bread"
    place: str  # "the bakery by the church"
    tool: str  # "her wooden spoon"
    pet: str  # "a grey cat called Pepper"
    boat: str  # "the Swallow"


PEOPLE = (
    Person("Nora", "she", "her", "the baker", "bakes the bread", "the bakery by the church", "her long wooden spoon",
           "a grey cat called Pepper", "the Crumb"),
    Person("Tomas", "he", "his", "the fisherman", "catches the fish", "the blue house on the quay", "his best net",
           "a white dog called Salt", "the Heron"),
    Person("Ines", "she", "her", "the harbour master", "counts the ships", "the office at the pier", "her brass telescope",
           "a green parrot called Admiral", "the Swallow"),
    Person("Paul", "he", "his", "the sailmaker", "sews the sails", "the loft above the boathouse", "his curved needle",
           "a fat hen called Button", "the Feather"),
    Person("Greta", "she", "her", "the teacher", "teaches the children", "the school on the hill", "her box of chalk",
           "a slow tortoise called Comma", "the Pencil"),
    Person("Marek", "he", "his", "the boatbuilder", "builds the boats", "the yard behind the dunes", "his heavy hammer",
           "a brown goat called Nail", "the Oak"),
    Person("Lucia", "she", "her", "the doctor", "heals the sick", "the yellow house at the bridge", "her leather bag",
           "a black cat called Midnight", "the Lantern"),
    Person("Ben", "he", "his", "the lighthouse keeper", "lights the lamp", "the lighthouse on the rock", "his oil can",
           "a one-eyed gull called Captain", "the Moth"),
)  # fmt: skip

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")  # fmt: skip

WEATHER = {
    "fog": ("Fog lay on the water all morning.", "The fog was so thick that nobody could see the pier.",
            "A white fog came in from the sea before breakfast.", "The day began in fog, and the bell rang every minute."),
    "storm": ("A storm came up from the west.", "The wind tore at the roofs, and the waves jumped over the wall.",
              "All night the storm had shaken the windows.", "Black clouds stood over the bay, and the storm broke at noon."),
    "sun": ("The sun shone, and the sea was as flat as a plate.", "It was a warm, bright day without a cloud.",
            "The morning was clear, and the water glittered.", "The sun came up red behind the island."),
    "rain": ("It rained, softly and without a pause.", "Rain ran down the lanes and into every boot.",
             "Grey rain fell on the roofs from dawn to dusk.", "The gutters sang with rain."),
    "snow": ("Snow had fallen in the night, and the boats wore white caps.", "It was so cold that the ropes were stiff with ice.",
             "Small dry snow blew along the quay.", "The first snow of the year lay on the steps."),
    "wind": ("A fresh wind blew from the north.", "The wind pulled at the washing and at every hat.",
             "The flags stood stiff in the wind.", "A good wind blew, and everyone who had a sail put to sea."),
}  # fmt: skip

CARGO = ("barrels of salt", "forty sacks of flour", "oranges and lemons", "planks of oak", "a piano for the school", "coal",
         "blue cloth", "boxes of nails", "three crates of tea", "onions and garlic", "lamp oil", "letters and newspapers",
         "a cow that did not like the sea", "glass for the windows", "rolls of canvas", "honey in small brown jars")  # fmt: skip
SHIPS = ("the Marigold", "the Patience", "the Three Sisters", "the Old Penny", "the North Star", "the Blue Goose", "the Fair Wind",
         "the Thistle")  # fmt: skip
TOWNS = ("Westhaven", "Port Amber", "Lowry", "Stonebridge", "the Long Island", "Castle Bay")
FOODS = ("fish soup", "warm bread and butter", "apple cake", "fried herring", "pea soup with bacon", "plum pie", "potatoes and onions",
         "pancakes with honey")  # fmt: skip
ARRIVALS = ("{Ship} came in from {town} with {cargo}.", "At the pier lay {ship}, which had brought {cargo} from {town}.",
            "{Ship} sailed for {town} with {cargo} on board.", "{Ship} waited outside the bar and came in with the tide, bringing {cargo}.",
            "Two men from {ship} carried {cargo} up the steps.", "No ship came today but {ship}, and she brought only {cargo}.")  # fmt: skip

# Each plot: its weathers, and its steps in their order, each in several wordings. {A} and {B} are two people, {a.FIELD} what is
# known of the first; {Ship}, {town}, {cargo}, {food} are drawn for the page.
PLOTS: tuple[tuple[tuple[str, ...], tuple[tuple[str, ...], ...]], ...] = (
    (("fog", "rain", "wind", "sun"), (
        ("{A} could not find {a.tool}.", "{A} came out of {a.place} and said that {a.tool} was gone.", "This morning {a.tool} was missing, and {A} asked everyone."),
        ('"It was here last night," {a.she} said.', '"Who takes such a thing?" asked {A}.', '"Without it I can do nothing," said {A}.'),
        ("{B} helped to look for it.", "{B} left {b.place} and came to help.", "{B} looked under every boat on the beach."),
        ("They found it under a heap of nets.", "It lay in {b.place}, where {A} had left it on {day}.", "{Bpet} was sitting on it.", "It stood behind the door, where it always stands."),
        ("{A} laughed and gave {B} {food}.", '"Next time I will look at home first," said {A}.', "Nobody had stolen anything, and both went back to work."),
    )),
    (("storm", "wind"), (
        ("{A} was out in {a.boat} when it began.", "{a.Boat} had not come home, and {A} was on board.", "At noon somebody saw {a.boat} far out, with {A} in it."),
        ("{Ben} kept the lamp burning.", "The bell on the pier rang and rang.", "People stood on the wall with ropes and lanterns."),
        ("{B} took {b.boat} and rowed out.", "{B} said nothing, put on a coat and pushed {b.boat} into the water.", '"I will go," said {B}, and went.'),
        ("After an hour both boats came in behind the rock.", "They came back wet and cold, but they came back.", "A wave broke the mast, yet nobody was hurt."),
        ("{Lucia} gave them hot tea and dry blankets.", "That evening there was {food} for everybody.", "{A} will not forget it."),
    )),
    (("sun", "wind"), (
        ("It was market day, and {A} had a table next to {B}.", "{A} and {B} went to the market together.", "On the market square {A} was the first to be ready."),
        ("{A} sold {cargo2}.", "{B} bought {cargo2} and paid too much.", "Someone from {town} wanted to buy {a.tool}, but it was not for sale."),
        ("{Apet} stole a sausage and ran.", "The children ate {food} and ran about between the tables.", "A man with a fiddle played until his string broke."),
        ('"How much is it?" asked {B}. "Two coins," said {A}, "and one for a friend."', '"That is not fresh," said {B}. "It was, on {day}," said {A}.', '"Take it," said {A}. "You helped me in the winter."'),
        ("In the evening the square was empty and clean.", "{A} counted the money and was content.", "Everyone went home with full baskets."),
    )),
    (("sun", "rain", "snow"), (
        ("{Greta} brought the children to {a.place}.", "The children of the school came to see {A} at work.", "Six children knocked at {a.place} and asked what {A} does."),
        ('"I am {a.work}," said {A}. "In this village it is I who {a.does}."', '{A} showed them {a.tool} and what it is good for.', '"Who knows what this is?" asked {A}, and held up {a.tool}.'),
        ("A small boy wanted to try it at once.", "A girl asked why, and then why again.", "One of them asked if it was hard to learn."),
        ('"Ten years," said {A}, "and I am still learning."', '"It is easy when your hands know it," said {A}.', '"You must be patient," said {A}, "and get up early."'),
        ("Then {Apet} came in, and nobody listened any more.", "They all went home with {food}.", "On the way back they talked of nothing else."),
    )),
    (("rain", "snow", "fog"), (
        ("{A} was ill and stayed in bed.", "{A} had a cold and could not speak.", "{A} fell on the wet steps and hurt {a.her} foot."),
        ("{Lucia} came with her leather bag.", "{Lucia} looked at {A} for a long time and said: rest.", "The doctor, {Lucia}, ordered three days of rest."),
        ("{B} brought {food}.", "{B} left {b.place} early and sat by the bed.", "{B} fed {a.pet}, who does not like strangers."),
        ("So for a day nobody was there who {a.does3}.", "The village noticed how much it needs someone who {a.does3}.", "{B} tried to do {a.her} work and did it badly."),
        ("On {day} {A} was well again.", "Tomorrow {a.she} will be up, whatever the doctor says.", '"I have slept enough for a year," said {A}.'),
    )),
    (("sun", "fog", "wind", "rain"), (
        ("{A} wanted a new boat.", "{a.Boat} had a hole as big as a fist.", "{A} had decided to paint {a.boat}."),
        ("{Marek} looked at the wood and shook his head.", "{Marek} said that it would take a week.", "In the yard behind the dunes {Marek} was sharpening his saw."),
        ("{B} held the planks, and {Marek} used his heavy hammer.", "{Paul} sewed a new sail with his curved needle.", "They worked until it was too dark to see."),
        ("The paint was as green as young grass.", "On {day} they carried it to the water.", "It floated, and it stayed dry inside."),
        ('"She is better than new," said {A}.', "{A} paid with {food} and a handshake.", "{A} sailed once around the rock and came back smiling."),
    )),
    (("fog", "snow", "storm"), (
        ("In the evening a stranger knocked at {a.place}.", "A stranger came from {ship} and asked for a bed.", "Someone was sitting on the pier with a wet suitcase."),
        ('"Where do you come from?" asked {A}. "From {town}," said the stranger.', "He spoke a language that only {B} understood.", "She had walked all the way from {town}."),
        ("{A} made a fire and brought {food}.", "{Apet} looked at the guest and decided to like her.", "{B} lent dry clothes, which were too large."),
        ("The stranger told of cities where lamps burn all night.", "The stranger could sing, and sang until midnight.", "The guest had lost a letter and wept about it."),
        ("In the morning the bed was empty, and on the table lay a coin.", "The guest will leave with {ship} on {day}.", "Perhaps the stranger will stay; there is room."),
    )),
    (("sun", "snow", "wind"), (
        ("Today was the birthday of {A}.", "It was the feast of the harbour, and nobody worked.", "{A} and {B} had a wager about who was faster."),
        ("{Nora} had baked a cake like a ship.", "There was {food}, and after it there was {food2}.", "{B} had made a present and hid it behind {b.her} back."),
        ("They raced {a.boat} against {b.boat} around the rock.", "Everybody danced on the quay, even {Ben}.", "The children sang, not well but loudly."),
        ("{a.Boat} won by the length of an oar.", "{B} won, and {A} said that the wind was to blame.", "{Apet} fell into the water and swam like an otter."),
        ("When the stars came out they were still singing.", "{A} said that it was the best day of the year.", "We went to bed late and will get up late."),
    )),
)  # fmt: skip
