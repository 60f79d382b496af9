"""Text -> terms, the words that lexical search looks up: one tokenizer for titles, descriptions and questions.

A term is a folded word (see `text.fold`) with what people write in several ways made one:

- *model numbers*: "R20", "R-20" and "R 20" share ``r20``; "LT-350" also gives ``lt`` and ``350``, so that a part of one
  finds it.
- *measures*: ``32gb`` for "32 GB", "32GB" and "32-gigabyte"; ``42in`` for '42"', "42-Inch" and "42 polegadas".
- *plurals* of English, Portuguese and Spanish, by their endings alone: "camera" and "cameras", "rede" and "redes",
  "botão" and "botões" share a term, which need not be a word. What is no plural is cut the same way on both sides, so
  that it still finds itself.
"""

from __future__ import annotations

import functools
import re
from typing import Final

from ragqa.retrieval.text import LONGEST_KEPT, fold

# Ways to write a unit, folded -> its term. Single letters stand behind a number alone ("5 l", "60 w").
_UNITS: Final = {
    "in": ("in", "inch", "inches", "pol", "polegada", "polegadas", "pulgada", "pulgadas"),
    "ft": ("ft", "foot", "feet"),
    "cm": ("cm", "centimeter", "centimeters", "centimetro", "centimetros"),
    "mm": ("mm", "millimeter", "millimeters", "milimetro", "milimetros"),
    "m": ("m", "meter", "meters", "metro", "metros"),
    "kg": ("kg", "kgs", "kilo", "kilos", "quilo", "quilos", "kilogram", "kilograms"),
    "g": ("g", "gr", "gram", "grams", "grama", "gramas", "gramo", "gramos"),
    "lb": ("lb", "lbs", "pound", "pounds"),
    "oz": ("oz", "ounce", "ounces"),
    "l": ("l", "lt", "liter", "liters", "litre", "litres", "litro", "litros"),
    "ml": ("ml", "milliliter", "milliliters"),
    "kb": ("kb", "kilobyte", "kilobytes"),
    "mb": ("mb", "megabyte", "megabytes"),
    "gb": ("gb", "gigabyte", "gigabytes"),
    "tb": ("tb", "terabyte", "terabytes"),
    "hz": ("hz", "hertz"),
    "ghz": ("ghz", "gigahertz"),
    "mhz": ("mhz", "megahertz"),
    "w": ("w", "watt", "watts"),
    "kw": ("kw", "kilowatt", "kilowatts"),
    "v": ("v", "volt", "volts"),
    "a": ("amp", "amps", "ampere", "amperes"),
    "mah": ("mah",),
    "mp": ("mp", "megapixel", "megapixels"),
    "k": ("k",),
}
_UNIT_OF: Final = {name: unit for unit, names in _UNITS.items() for name in names}
# Inches and feet are often signs, which folding takes away.
_SIGNS: Final = re.compile(r"(?<=\d)\s?(?:(?P<inch>[\"“”″]|'')|(?P<foot>['’′](?!\w)))")
_PARTS: Final = re.compile(r"\d+(?:[.,/]\d+)*|[^\W\d_]+|[+#]+")
# A word without its s goes through all of these, in this order, if it has more than four letters: batterie and battery,
# botoe (of botões) and botao, watche and watch, jornai and jornal, homem and homen come to the same.
_ENDINGS: Final = (
    ("ie", "y"), ("oe", "ao"), ("e", ""), ("al", "ai"), ("el", "ei"), ("ol", "oi"), ("m", "n"),
)  # fmt: skip
_NO_PLURALS: Final = ("ss", "us", "is")
_PLURALS_IN_IS: Final = ("ais", "eis", "ois")


def terms(text: str) -> list[str]:
    """The terms of a text in their order, with repetitions.

    >>> terms('VIXIA HF-R20 camcorders, 32 GB, 3"')
    ['vixia', 'hf', 'r20', 'r', '20', 'camcorder', '32gb', '32', '3in', '3']
    """
    words = fold(_SIGNS.sub(_unit_of_sign, text)).split()
    found: list[str] = []
    for place, word in enumerate(words):
        before = words[place - 1] if place else ""
        if word[0].isdigit():
            # A unit that was taken with the number before it stands for itself no more.
            after = words[place + 1] if place + 1 < len(words) else ""
            found += _number(word, after)
            if len(before) <= 3 and before.isalpha() and before.isascii() and word.isalnum():
                found.append(before + word)  # the model number they may be: "r" and "20"
        elif not (before and word in _UNIT_OF and _is_number(before)):
            found += _word(word)
    return found


def _unit_of_sign(sign: re.Match[str]) -> str:
    return " in " if sign["inch"] else " ft "


def _is_number(word: str) -> bool:
    digits = _PARTS.match(word)
    return word[0].isdigit() and digits is not None and digits[0] == word


def _number(word: str, after: str) -> tuple[str, ...]:
    """The terms of a word that begins with a digit, before another word: with its unit, if it has one."""
    if len(word) + len(after) > LONGEST_KEPT:
        return _terms_of_number(word, after)
    return _known_number(word, after)


def _word(word: str) -> tuple[str, ...]:
    return _known_word(word) if len(word) <= LONGEST_KEPT else _terms_of_word(word)


def _terms_of_number(word: str, after: str) -> tuple[str, ...]:
    digits = _PARTS.match(word)
    number = digits[0] if digits else ""
    unit = _UNIT_OF.get(word[len(number) :]) or (_UNIT_OF.get(after) if number == word else None)
    return (f"{number}{unit}", number) if unit else _word(word)


def _terms_of_word(word: str) -> tuple[str, ...]:
    parts = _PARTS.findall(word)
    if len(parts) > 1 and any(part[0].isdigit() for part in parts):
        return (word, *parts)
    return (stem(word),)


_known_number = functools.lru_cache(maxsize=65536)(_terms_of_number)
_known_word = functools.lru_cache(maxsize=65536)(_terms_of_word)


def stem(word: str) -> str:
    """What a folded word has in common with its plural.

    >>> [stem(word) for word in ("boxes", "batteries", "watches", "botoes", "redes", "glass")]
    ['box', 'battery', 'watch', 'botao', 'rede', 'glass']
    """
    if not word.isalpha():
        return word
    if len(word) > 2 and word[-1] == "s" and (not word.endswith(_NO_PLURALS) or word.endswith(_PLURALS_IN_IS)):
        word = word[:-1]
    if word.endswith("xe"):
        return word[:-1]
    for ending, one in _ENDINGS:
        if len(word) > 4 and word.endswith(ending):
            word = word[: -len(ending)] + one
    return word
