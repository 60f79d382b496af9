"""Options that several commands share, under one name each."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from typing import Any, Final

from ragqa.catalogue.columns import ReadOptions
from ragqa.catalogue.read import FORMATS
from ragqa.errors import InputError
from ragqa.settings import CleaningSettings

_LONGEST_SIZE: Final = 40  # characters


def add_common(parser: argparse.ArgumentParser) -> None:
    """--quiet."""
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress on stderr")


def add_catalogue(parser: argparse.ArgumentParser, flag: str = "", cleaning: bool = True) -> None:
    """The catalogue, how it is read and, unless that is settled, cleaned; the catalogue by its place, or by a flag."""
    defaults = CleaningSettings()
    named: dict[str, Any] = {"required": True} if flag else {}
    parser.add_argument(flag or "catalogue", metavar="CATALOGUE", help=FORMATS, **named)
    group = parser.add_argument_group("reading and cleaning" if cleaning else "reading")
    for part in ("id", "title", "text"):
        group.add_argument(
            f"--{part}-column",
            metavar="NAME",
            help=f"column of the {part} (default: the usual names are tried)",
        )
    group.add_argument("--encoding", default="utf-8", help="of text files (default: utf-8)")
    group.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="at a malformed row: stop, or skip and count it (default: stop)",
    )
    of_index = "" if cleaning else " (default: as many as the index was limited to, if it was)"
    group.add_argument("--limit", type=int, metavar="N", help=f"take only the first N products{of_index}")
    if not cleaning:
        return
    group.add_argument("--lowercase", action="store_true", help="lower-case all text")
    group.add_argument(
        "--max-title-chars",
        type=int,
        default=defaults.max_title_chars,
        metavar="N",
        help="(default: %(default)s)",
    )
    group.add_argument(
        "--max-description-chars", type=int, default=defaults.max_description_chars, metavar="N",
        help="(default: %(default)s)",
    )  # fmt: skip


def reading_options(chosen: argparse.Namespace) -> ReadOptions:
    """How the catalogue is read."""
    return ReadOptions(
        id_column=chosen.id_column,
        title_column=chosen.title_column,
        text_column=chosen.text_column,
        encoding=chosen.encoding,
        on_error=chosen.on_error,
    )


def catalogue_arguments(chosen: argparse.Namespace) -> dict[str, Any]:
    """`options`, `cleaning` and `limit` for `prepare` and `build_index`."""
    return {
        "options": reading_options(chosen),
        "cleaning": CleaningSettings(
            lowercase=chosen.lowercase,
            max_title_chars=chosen.max_title_chars,
            max_description_chars=chosen.max_description_chars,
        ),
        "limit": chosen.limit,
    }


def given(chosen: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """Of the options with these names those that were given."""
    return {name: value for name in names if (value := getattr(chosen, name, None)) is not None}


def add_device(parser: argparse.ArgumentParser, further: str = "") -> None:
    """--device and --dtype, with `further` formats in its help."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    parser.add_argument(
        "--dtype", default="auto", help=f"auto, float32, bfloat16 or float16{further} (default: auto, the fastest here)"
    )


def size_in_bytes(text: str) -> int:
    """A number of bytes, as people write it."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", text.strip().lower())
    if not found or len(text) > _LONGEST_SIZE:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; such as 500MB or 1.5GB are accepted")
    return int(float(found[1]) * 1000 ** " kmgt".index(found[2] or " "))


def add_engine(parser: argparse.ArgumentParser, work: str) -> None:
    """--engine and where Ray is; `work` is what it does."""
    group = parser.add_argument_group("many machines (ragqa[ray])")
    group.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help=f"what {work}: this process, or Ray (default: local)",
    )
    group.add_argument(
        "--address", metavar="HOST:PORT",
        help="the head of a Ray cluster, or auto for the one this machine is part of (default: RAY_ADDRESS, or a Ray started here)",
    )  # fmt: skip
    group.add_argument(
        "--workers", type=int, metavar="N", help="processes (default: one a GPU, or where there is none, one a CPU)"
    )


def check_engine(chosen: argparse.Namespace, names: Iterable[str] = ("address", "workers")) -> bool:
    """Whether Ray is to do it.

    Raises:
        InputError: it is not, and an option for it was given.
    """
    if chosen.engine != "ray" and (without := given(chosen, names)):
        raise InputError(f"--{next(iter(without))}: is for Ray; add --engine ray")
    return bool(chosen.engine == "ray")
