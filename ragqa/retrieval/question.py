"""A question taken apart: its frame ("What is the description of ...") and its subject.

Only the subject is compared with titles, so that the frame, in whatever language, costs no accuracy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ragqa.errors import InputError, QuestionError
from ragqa.records import Language, Question
from ragqa.retrieval.text import encodable

# Of one `ask_many`, and of those worked on at once.
_MOST_QUESTIONS: Final = 100_000
_AT_ONCE: Final = 512

# Greetings and courtesies, as many as there are, then at most one frame: what follows a frame is the
# subject, even where it looks like a frame again ("What is the description of What Is a Frog?").
_OPENERS: Final[dict[Language, str]] = {
    "en": r"""
        hi | hello | hey | please | excuse\ me | (?:can|could|would|will)\ you | i(?:'d|’d|\ would)\ like(?:\ to)?
        | i\ want(?:\ to)? | i\ need(?:\ to)?
    """,
    "pt": r"""
        oi | olá | ola | bom\ dia | boa\ tarde | boa\ noite | por\ favor
        | (?:você|voce|vocês|voces|vc|vcs)\ (?:pode|podem|poderia|poderiam)
        | (?:eu\ )?(?:quero|queria|gostaria\ de|preciso)
    """,
    "es": r"""
        hola | buenos\ días | buenas\ tardes | (?:puede|puedes|podría|podrías) | (?:yo\ )?(?:quiero|quisiera|necesito)
    """,
}
_FRAMES: Final[dict[Language, str]] = {
    "en": r"""
        (?:(?:what(?:'s|’s|\ is|\ are|\ was)?|give|show|find|tell|know|read|see|get|have)(?:\ (?:me|us|is))?\ )?
            (?:the\ |a\ |an\ |its\ )?(?:product\ |full\ |item\ )*(?:descriptions?|details?|information|info)
            \ (?:of|for|about|on)(?:\ (?:this|the|that)\ (?:product|item)\b)?\s*:?
        | (?:(?:can\ you\ |please\ )?(?:tell|show)\ (?:me|us)|know|learn|read|hear)(?:\ more|\ something)?\ (?:about|of)
        | describe(?:\ (?:to\ )?(?:me|us))?(?:\ (?:this|the|that)\ (?:product|item)\b)?\s*:?
        | (?:what\ (?:is|are)\ )?(?:this|the|that)\ (?:product|item)\s*:
        | what(?:'s|’s|\ is|\ are)(?:\ an?|\ the)?
        | (?:do|have)\ you\ (?:have|sell|stock|got)(?:\ (?:an?|any|the))?
        | (?:i(?:'m|’m|\ am)\ )?looking\ for(?:\ (?:an?|any|the))?
    """,
    "pt": r"""
        (?:(?:qual|quais|me\ (?:dê|de|diga|mostre|passe)|dê-me|diga-me|mostre(?:-me)?|saber|ver|ler)\ )?
            (?:(?:é|e|eh|são|seria)\ )?(?:a\ |as\ |o\ |os\ )?
            (?:descriç(?:ão|ões)|descric(?:ao|oes)|detalhes?|informaç(?:ão|ões)|informac(?:ao|oes))\ (?:completa\ )?
            (?:de|do|da|dos|das|deste|desse|desta|dessa|sobre\ o|sobre\ a|sobre)
            (?:\ (?:este\ |esse\ |o\ )?(?:produto|item|artigo)\b)?\s*:?
        | descreva(?:-me)?(?:\ (?:este|esse|o|a)\ (?:produto|item)\b)?\s*:?
        | (?:me\ )?(?:fale|conte|diga)(?:-me)?(?:\ mais)?\ (?:sobre|de|do|da)(?:\ (?:o|a|este|esse))?
            (?:\ (?:produto|item)\b)?\s*:?
        | (?:saber|conhecer)(?:\ mais)?(?:\ sobre)?(?:\ (?:o|a))?
        | (?:o\ )?que\ (?:é|eh|são)(?:\ (?:o|a|um|uma))?(?:\ (?:produto|item)\b)?\s*:?
        | (?:vocês|voces|vcs|você|voce|vc)\ (?:têm|tem|vende|vendem)
        | (?:estou\ )?(?:procurando|procuro)(?:\ (?:por|o|a|um|uma))?
        | (?:este|esse|o)\ (?:produto|item)\s*:
    """,
    "es": r"""
        (?:(?:cuál|cual|cuáles|cuales)\ (?:es|son)\ )?(?:la\ |las\ )?(?:descripci(?:ón|on|ones)|detalles?)
            \ (?:de\ este|de\ ese|de\ la|del|de|sobre)(?:\ (?:producto|artículo|articulo)\b)?\s*:?
        | (?:describe|describa|descríbeme)(?:\ (?:este|el|la)\ (?:producto|artículo|articulo)\b)?\s*:?
        | (?:háblame|hablame|cuéntame|cuentame|dime)(?:\ más|\ mas)?\ (?:sobre|de|del)(?:\ (?:el|la))?
        | saber(?:\ más|\ mas)?(?:\ sobre)?
        | qu(?:é|e)\ (?:es|son)(?:\ (?:el|la|un|una))?(?:\ (?:producto|artículo|articulo)\b)?\s*:?
        | (?:tienen|tienes|venden)
        | (?:estoy\ )?(?:buscando|busco)(?:\ (?:el|la|un|una))?
    """,
}


def _beginning(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"[\s¿¡]*(?:{pattern})(?:(?<=:)|(?=[\s,:\"'“”«]|$))[\s,]*", re.IGNORECASE | re.VERBOSE)


_OPENING: Final = [(language, _beginning(opener)) for language, opener in _OPENERS.items()]
_FRAMING: Final = [(language, _beginning(frame)) for language, frame in _FRAMES.items()]
_COURTESY: Final = re.compile(
    r"[\s,.!?]*\b(?:please|thanks|thank you|por favor|obrigad[oa]|gracias)[\s.!?]*$", re.IGNORECASE
)
_END: Final = re.compile(r"[\s?!.;]+$")
_QUOTED: Final = re.compile(r"^[\"'“”„«‘`](.+)[\"'“”»’`]$")
# Words that tell the language of a question without a frame.
_HINTS: Final[dict[Language, frozenset[str]]] = {
    "en": frozenset(
        "what which the of for is are with and this that description about do you have price how where".split()
    ),
    "pt": frozenset(
        "qual quais descrição descricao deste desse produto você vocês não para com uma do da dos das tem têm é o e em "
        "que sobre preço quero onde como".split()
    ),
    "es": frozenset(
        "cuál cual descripción descripcion este producto usted no para con una del los las tienen es el y qué "
        "sobre".split()
    ),
}


def in_blocks(texts: Sequence[str], max_chars: int) -> list[Sequence[str]]:
    """Questions by the block, of which candidates and prompts are held at once; all are looked at before the first.

    Raises:
        InputError: they are too many, or one text in the place of several.
        QuestionError: one of them is empty or too long.
    """
    if isinstance(texts, str):
        raise InputError("ask_many takes a list of questions; for one question call ask")
    if len(texts) > _MOST_QUESTIONS:
        raise InputError(f"{len(texts):,} questions are more than {_MOST_QUESTIONS:,} at once; ask them in parts")
    for text in texts if len(texts) > _AT_ONCE else ():
        parse_question(text, max_chars)
    return [texts[start : start + _AT_ONCE] for start in range(0, len(texts), _AT_ONCE)]


def parse_question(text: str, max_chars: int = 4000) -> Question:
    """Take a question apart.

    Args:
        text: what the user typed, in English, Portuguese or Spanish, with or without a frame.
        max_chars: longer questions are refused.

    Raises:
        QuestionError: it is no text, nothing to look for is in it, or it is longer than `max_chars`.
    """
    given: object = text
    if not isinstance(given, str):
        raise QuestionError(f"a question is a text, not a value of type {type(given).__name__}")
    if len(text) > max_chars:
        raise QuestionError(
            f"the question has {len(text):,} characters; at most {max_chars:,} are accepted (--max-question-chars)"
        )
    folded = " ".join(encodable(text).split())
    if not folded:
        raise QuestionError("the question is empty; ask, for example: What is the description of TITLE?")
    readings = [folded]
    language: Language | None = None

    def read_as(reading: str) -> bool:
        if reading and reading != readings[-1]:
            readings.append(reading)
            return True
        return False

    def strip(beginnings: list[tuple[Language, re.Pattern[str]]]) -> Language | None:
        for spoken, beginning in beginnings:
            match = beginning.match(readings[-1])
            if match and read_as(readings[-1][match.end() :]):
                return spoken
        return None

    while spoken := strip(_OPENING):
        language = language or spoken
    language = strip(_FRAMING) or language
    read_as(_END.sub("", readings[-1]))
    if len(readings) > 1:
        read_as(_COURTESY.sub("", readings[-1]))
    if match := _QUOTED.match(readings[-1]):
        read_as(match[1])
    return Question(folded, readings[-1], tuple(readings), language or _guess_language(folded))


def _guess_language(text: str) -> Language:
    words = re.findall(r"\w+", text.lower())
    counts = {language: sum(word in hints for word in words) for language, hints in _HINTS.items()}
    best = max(counts.values())
    return next(language for language in ("en", "pt", "es") if counts[language] == best)
