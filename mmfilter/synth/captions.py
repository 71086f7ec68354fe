"""Scenes to words: English in many forms, other languages in a plain one, and captions that say nothing."""

from random import Random

from .scenes import Group, Scene
from .words import COLOURS, COUNTS, LANGUAGES, NOUNS, NUMBERS, PLACES, RELATIONS, SIZES, TEXTURES

OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
WITH = {"striped": "with stripes", "dotted": "with dots", "checkered": "with a checkered pattern"}
ONE = ("a picture of {}", "an image of {}", "a drawing showing {}", "this picture shows {}", "{} can be seen")

BOILERPLATE = (
    "Click here to see the full size image",
    "IMG_{n}.JPG",
    "Free shipping on all orders over ${n}",
    "Image may be subject to copyright, all rights reserved",
    "Loading, please wait a moment",
    "Share this photo with your friends on social media",
    "Sign up for our newsletter and save {n}%",
    "Product image number {n}, hover to zoom",
    "Posted by admin on March {n}",
    "Stock photo ID {n}, royalty free",
    "Advertisement: continue reading below",
    "View all {n} comments",
    "This image is no longer available",
    "Thumbnail for version as of {n}:14",
    "Add to cart, only {n} left in stock",
    "Page {n} of the user manual",
)
SLOGANS = (
    "BIG SALE up to {n}% off",
    "Follow your dreams",
    "Keep calm and carry on",
    "Grand opening on Saturday at {n}",
    "Never stop learning",
    "Chapter {n}: the long way home",
    "Terms and conditions apply",
    "Happy birthday to you",
    "Call now 555-0{n}",
    "Invoice number {n}, due on receipt",
    "Dream big, work hard, stay humble",
    "Please do not park here",
    "Limited offer, {n} days only",
    "Meeting room {n} is closed today",
)

# language -> (sentence, how a plain background's colour is told)
SENTENCES: dict[str, tuple[str, str]] = {
    "de": ("Das Bild zeigt {told}, {ground}", "der Hintergrund ist in {}"),
    "fr": ("Cette image montre {told}, {ground}", "sur un fond {}"),
    "es": ("Esta imagen muestra {told}, {ground}", "sobre un fondo {}"),
    "it": ("Questa immagine mostra {told}, {ground}", "su uno sfondo {}"),
    "zh": ("图中{ground}有{told}", "{}背景上"),
}


def english(scene: Scene, rng: Random) -> str:
    """A true caption of three words or more; details are left out at random, nothing is made up."""
    groups = [_group(group, rng) for group in scene.groups]
    place = _place(scene, rng)
    told = groups[0]
    if len(groups) == 2:
        if rng.random() < 0.75:
            told = _related(groups, scene.relation, rng)
        elif rng.random() < 0.6:
            told = " and ".join(rng.sample(groups, 2))
    elif rng.random() < 0.2:
        told = rng.choice(ONE).format(told)
    if rng.random() < 0.12 and place:
        text = f"{place}, {told}"
    else:
        text = f"{told} {place}" if place and rng.random() < 0.85 else told
    text = text[0].upper() + text[1:] if rng.random() < 0.5 else text
    return text + "." if rng.random() < 0.25 else text


def _related(groups: list[str], relation: str, rng: Random) -> str:
    if rng.random() < 0.5:
        return f"{groups[0]} {rng.choice(RELATIONS[relation][0])} {groups[1]}"
    return f"{groups[1]} {rng.choice(RELATIONS[OPPOSITE[relation]][0])} {groups[0]}"


def _group(group: Group, rng: Random) -> str:
    """ "three striped red stars"."""
    words = []
    if rng.random() < 0.8:
        words.append(rng.choice(SIZES[group.size]))
    texture, after = rng.choice(TEXTURES[group.texture]), ""
    if rng.random() < 0.15:
        texture = ""
    elif group.texture in WITH and rng.random() < 0.3:
        texture, after = "", f" {WITH[group.texture]}"
    words += [texture, rng.choice(COLOURS[group.colour][1]), _noun(group, rng)]
    phrase = " ".join(word for word in words if word)
    return f"{_count(group.count, phrase, rng)} {phrase}{after}"


def _noun(group: Group, rng: Random) -> str:
    plural, synonym = NOUNS[group.shape][:2]
    if synonym and rng.random() < 0.25:
        return synonym + ("" if group.count == 1 else "s")
    return group.shape if group.count == 1 else plural


def _count(count: int, phrase: str, rng: Random) -> str:
    word = rng.choice(COUNTS[count])
    return "an" if word == "a" and phrase[0] in "aeiou" else word


def _place(scene: Scene, rng: Random) -> str:
    if scene.place:
        return rng.choice(PLACES[scene.place][0])
    colour = rng.choice(COLOURS[scene.colour][1])
    ground = rng.choice(("on {} background", "against {} background", "in front of {} backdrop"))
    return ground.format(f"{'an' if colour[0] in 'aeiou' else 'a'} {colour}")


def short(scene: Scene, rng: Random) -> str:
    """A true caption of two words: "red star"."""
    group = scene.groups[0]
    noun = (group.shape if group.count == 1 else NOUNS[group.shape][0]).split()[-1]
    return rng.choice((f"{group.colour} {noun}", f"{group.colour.capitalize()} {noun}"))


def boilerplate(rng: Random) -> str:
    """Words that stood near some picture and describe none."""
    return rng.choice(BOILERPLATE).format(n=rng.randint(10, 9999))


def slogan(rng: Random) -> str:
    """What stands on a picture of text."""
    return rng.choice(SLOGANS).format(n=rng.randint(10, 99))


def foreign(scene: Scene, rng: Random) -> tuple[str, str]:
    """(a true caption, its language: de, fr, es, it or zh)."""
    number = rng.randrange(len(LANGUAGES))
    language = LANGUAGES[number]
    sentence, plain = SENTENCES[language]
    told = _foreign_group(scene.groups[0], number)
    if scene.relation:
        relation, other = RELATIONS[scene.relation][1][number], _foreign_group(scene.groups[1], number)
        # In Chinese the relation's words say what lies there: it is told of the second group.
        told = f"{other}{relation}{told}" if language == "zh" else f"{told}, {relation} {other}"
    ground = PLACES[scene.place][1][number] if scene.place else plain.format(COLOURS[scene.colour][2][number])
    return sentence.format(told=told, ground=ground), language


def _foreign_group(group: Group, number: int) -> str:
    language, count = LANGUAGES[number], group.count
    singular, _, plural = NOUNS[group.shape][2 + number].partition("/")
    colour = COLOURS[group.colour][2][number]
    if language == "zh":
        return f"{NUMBERS[language][count - 1]}{colour}的{singular}"
    of = {"de": "in", "fr": "en", "es": "de color", "it": "di colore"}[language]
    amount = "1" if count == 1 else NUMBERS[language][count - 1]
    return f"{amount} {singular if count == 1 else plural} {of} {colour}"
