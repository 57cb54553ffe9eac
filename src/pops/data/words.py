"""What prompts are made of: objects, where they are, what they are made of, adjectives, garments. Our own lists."""

from __future__ import annotations

OBJECTS = tuple(
    """teapot, mug, vase, pitcher, bottle, bowl, candlestick, lantern, table lamp, alarm clock, radio, camera,
    typewriter, telephone, gramophone, guitar, violin, drum, trumpet, piano, armchair, rocking chair, wooden stool,
    sofa, cradle, suitcase, backpack, handbag, boot, sneaker, hat, helmet, umbrella, bicycle, motorcycle, car, van,
    tractor, steam train, sailing boat, rocket, airplane, hot air balloon, robot, toy soldier, doll, rocking horse,
    teddy bear, snowman, scarecrow, castle, cottage, lighthouse, windmill, igloo, barn, dog, cat, rabbit, fox, bear,
    elephant, lion, horse, cow, sheep, pig, owl, parrot, duck, penguin, swan, turtle, frog, fish, octopus, snail,
    butterfly, dinosaur, dragon, unicorn, apple, pear, pineapple, pumpkin, mushroom, cactus, bonsai tree, palm tree,
    sunflower, cupcake, donut, birthday cake, gingerbread house, burger, ice cream cone, crown, treasure chest,
    anchor, hourglass, globe, telescope, watering can, birdhouse, mailbox""".replace("\n", " ").split(", ")
)  # fmt: skip
OBJECTS = tuple(" ".join(name.split()) for name in OBJECTS)

PLACEMENTS = (
    "on a wooden table", "on a kitchen counter", "on a white shelf", "on a windowsill", "on a marble floor",
    "on a picnic blanket", "on a sandy beach", "on a rock by the sea", "in a green meadow", "in a flower garden",
    "in a misty forest", "in the snow", "in a desert", "in a cobbled street", "in a busy market", "in front of a barn",
    "in front of a brick wall", "in a library", "in a living room", "in a workshop", "in a greenhouse",
    "at the edge of a lake", "on a mountain path", "on a city rooftop at night", "under a cherry tree",
    "in autumn leaves", "on a jetty at sunset", "in a photo studio", "in an empty room", "on a stage",
)  # fmt: skip

TEXTURES = (
    "oak wood", "tree bark", "bamboo", "wicker", "cork", "red brick", "cobblestone", "slate", "white marble",
    "green jade", "obsidian", "amethyst crystals", "sandstone", "terracotta", "cracked earth", "blue porcelain",
    "stained glass", "mosaic tiles", "frosted glass", "ice", "snow", "lava", "water drops", "polished gold",
    "hammered copper", "rusty iron", "brushed steel", "chain mail", "circuit boards", "newspaper", "crumpled paper",
    "origami paper", "cardboard", "knitted wool", "denim", "tartan cloth", "lace", "velvet", "patchwork quilt",
    "embroidered silk", "burlap", "leather", "snake skin", "crocodile skin", "zebra fur", "leopard fur", "tiger fur",
    "peacock feathers", "fish scales", "sea shells", "moss", "ivy leaves", "rose petals", "grass", "coffee beans",
    "candy stripes", "chocolate", "honeycomb", "watermelon", "bubbles", "galaxy stars", "oil paint strokes",
    "graffiti", "polka dots", "bricks of a toy", "sequins", "beads",
)  # fmt: skip

ADJECTIVES = (
    "golden", "silver", "wooden", "stone", "glass", "frozen", "burning", "melting", "rusty", "mossy", "snowy",
    "muddy", "wet", "dusty", "old", "futuristic", "tiny", "enormous", "tall", "flat", "round", "spiky", "fluffy",
    "furry", "shiny", "transparent", "striped", "spotted", "rainbow", "cracked", "broken", "twisted", "inflated",
    "knitted", "floral", "haunted", "royal", "steampunk", "cute", "angry", "happy", "sleepy", "elegant", "abandoned",
)  # fmt: skip

ART_TYPES = (
    "oil painting", "watercolor", "pencil sketch", "charcoal drawing", "ink drawing", "pastel drawing", "woodcut",
    "etching", "mosaic", "fresco", "stained glass window", "clay sculpture", "marble statue", "bronze statue",
    "paper cut", "origami", "embroidery", "tapestry", "comic", "cartoon", "pixel art", "low poly render", "blueprint",
    "poster", "children's book illustration", "ukiyo-e print", "pop art print", "neon sign",
)  # fmt: skip

GARMENTS = {
    "hat": ("hat", "beret", "straw hat", "woollen cap", "cowboy hat"),
    "top": ("shirt", "sweater", "denim jacket", "raincoat", "hoodie", "blouse", "blazer"),
    "bottom": ("jeans", "pleated skirt", "shorts", "corduroy trousers", "leggings"),
    "shoes": ("sneakers", "boots", "sandals", "loafers"),
    "bag": ("handbag", "leather bag", "canvas bag"),
    "scarf": ("scarf", "woollen scarf"),
}
COLOURS = ("red", "blue", "green", "yellow", "white", "black", "brown", "pink", "striped", "floral", "checked")
PEOPLE = ("woman", "man", "girl", "boy", "old woman", "old man")
