"""What a captioner that knows no names says of an emoji: a noun for each subgroup, and the colours of the drawing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from multimodal_zoo.data.emoji_table import Emoji

#: Subgroup -> the generic noun for what it holds.
NOUNS = {
    "activities": "a person doing something",
    "affectionate": "a round face with a warm look",
    "air transportation": "something for travelling high up",
    "alphanumeric symbols": "a square with letters or characters",
    "amphibians": "a small animal",
    "arrows": "a pointing symbol",
    "arts & crafts": "a thing for making art",
    "asian": "a plate of food",
    "athletics": "a person doing a sport",
    "audio & video symbols": "a square with a simple symbol",
    "award medals": "a prize",
    "birds": "a feathered animal",
    "body parts": "a part of the body",
    "books & paper": "a thing made of paper",
    "bugs": "a very small animal",
    "buildings": "a building",
    "cat faces": "an animal head with an expression",
    "clothing": "something to wear",
    "computer": "an electronic device",
    "concerned": "a round face with a troubled look",
    "cooked / prepared": "a meal",
    "costumed & creatures": "a strange creature",
    "country flags": "a rectangle of coloured cloth",
    "currencies": "a symbol for money",
    "dishware": "a kitchen object",
    "drink": "something to drink",
    "emotions": "a comic effect",
    "events & holidays": "a thing for a celebration",
    "family": "a group of people",
    "fantasy": "a figure from a story",
    "finger pointing": "a hand",
    "fingers closed": "a hand",
    "fingers open": "a hand",
    "flowers": "a plant in bloom",
    "fruit": "a piece of sweet food",
    "games & hobbies": "a thing to play with",
    "gender signs": "a round symbol",
    "geographic locations": "a landscape",
    "gestures": "a person making a gesture",
    "globes & maps": "a picture of the earth",
    "ground transportation": "a vehicle or a thing on the street",
    "hand props": "a hand with an object",
    "hand signs": "a hand",
    "hands": "two hands",
    "hearts": "a symbol of feelings",
    "hotel": "an object for travellers",
    "household items": "a household object",
    "keypad characters": "a square with a character",
    "light, film & video": "an object that has to do with pictures or light",
    "lock & keys": "a metal object",
    "mail": "a thing for sending messages",
    "mammals": "an animal",
    "marine life": "an animal of the sea",
    "math symbols": "a simple symbol",
    "medical": "a medical object",
    "money": "a thing that has to do with money",
    "monkey faces": "an animal covering a part of its head",
    "music": "a thing for sound",
    "musical instruments": "an instrument",
    "negative": "a round face with an unfriendly look",
    "neutral / skeptical": "a round face with a flat look",
    "office supplies": "an object on a desk",
    "other flags": "a piece of cloth on a pole",
    "other objects": "an object",
    "other places": "a view of a place",
    "other plants": "a plant",
    "other symbols": "a symbol",
    "people": "a person",
    "people symbols": "a symbol of people",
    "phone": "a device for talking",
    "punctuation": "a written mark",
    "religious buildings": "a building with a roof",
    "religious symbols": "a symbol of faith",
    "reptiles": "an animal with scales",
    "resting": "a person at rest",
    "roles & careers": "a person at work",
    "science equipment": "an object of a laboratory",
    "shapes & colors": "a plain shape",
    "sleepy": "a round face with a tired look",
    "smiling": "a round face with a happy look",
    "sports": "a thing for playing a game outside",
    "sound": "a thing that makes sound",
    "subdivision flags": "a rectangle of coloured cloth",
    "sweets & candy": "something sweet to eat",
    "time": "a thing that has to do with time",
    "tools": "a tool",
    "transport signs": "a public sign",
    "unwell": "a round face with a sick look",
    "vegetables": "something to eat from the garden",
    "warning symbols": "a round sign",
    "water transportation": "something that floats",
    "weather": "something in the sky",
    "with glasses": "a round face with something over its eyes",
    "with hands": "a round face with a hand",
    "with hats": "a round face with something on its head",
    "with tongue": "a round face with its mouth open",
    "writing": "a thing to write or draw with",
    "zodiac signs": "a square with a sign",
}

#: What a caption calls the picture.
FORMS = ("drawing", "cartoon", "illustration", "picture", "graphic")
#: Colours by name, as RGB.
COLOURS = {
    "black": (30, 30, 30),
    "white": (240, 240, 240),
    "gray": (140, 145, 150),
    "red": (215, 45, 55),
    "orange": (245, 140, 30),
    "yellow": (255, 205, 75),
    "green": (90, 160, 60),
    "blue": (60, 120, 200),
    "light blue": (140, 200, 240),
    "purple": (145, 90, 185),
    "pink": (240, 150, 180),
    "brown": (140, 85, 50),
    "beige": (240, 215, 185),
}


def noun_of(row: Emoji) -> str:
    """The generic noun for a row, with its article.

    Raises:
        KeyError: a subgroup that has none.
    """
    return NOUNS[row.subgroup]


def colours_of(pictures: np.ndarray, step: int = 2, share: float = 0.15) -> list[tuple[str, ...]]:
    """The one or two colours that fill most of each picture, the greater one first.

    Args:
        pictures: uint8 (pictures, 4, height, width), straight RGBA; see-through pixels do not count.
        step: every how many rows and columns a pixel is looked at.
        share: of the seen pixels that the second colour must fill to be named.
    """
    names = tuple(COLOURS)
    palette = np.asarray([COLOURS[name] for name in names], dtype=np.float32)
    found: list[tuple[str, ...]] = []
    for picture in pictures[:, :, ::step, ::step]:
        pixels = picture.reshape(4, -1).T
        seen = pixels[pixels[:, 3] > 127, :3].astype(np.float32)
        if not len(seen):
            found.append(())
            continue
        nearest = ((seen[:, None] - palette) ** 2).sum(-1).argmin(1)
        counts = np.bincount(nearest, minlength=len(names))
        order = np.argsort(-counts, kind="stable")[:2]
        found.append(tuple(names[i] for i in order if counts[i] >= share * len(seen)))
    return found


def listed(words: Sequence[str]) -> str:
    """The words as an enumeration: `a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
