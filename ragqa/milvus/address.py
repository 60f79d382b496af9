"""Where a catalogue lies in Milvus: ``milvus://host:19530/catalogue``.

=====================================  ==================================================================
``milvus://host:19530/catalogue``      a server or cluster; without a port 19530
``milvus+tls://host/catalogue``        the same over TLS; without a port 443
``milvus://host/database/catalogue``   in another database than Milvus's default one
``milvus:///data/shop.db/catalogue``   a file of Milvus Lite, in this process; ``milvus://./shop.db/...`` from here
``...?timeout=5``                      seconds that a request may take, with all its attempts (default: 10)
=====================================  ==================================================================

Who asks is told by ``$RAGQA_MILVUS_TOKEN``, which holds ``user:password`` or a key, or by ``milvus://user:password@host/...``.
Neither is printed or kept anywhere.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from ragqa.errors import InputError

TOKEN: Final = "RAGQA_MILVUS_TOKEN"  # noqa: S105  (its name)
TIMEOUT: Final = 10.0
_SCHEMES: Final = {"milvus": "http", "milvus+tls": "https"}
_PORTS: Final = {"milvus": 19530, "milvus+tls": 443}
# What Milvus takes as a name; collections have sixteen characters more.
_NAME: Final = re.compile(r"[A-Za-z_]\w{0,199}", re.ASCII)
_LONGEST_TIMEOUT: Final = 3600.0
_FORM: Final = "give it as milvus://host:19530/catalogue"


def is_milvus(path: object) -> bool:
    """Whether this names a catalogue in Milvus."""
    return str(path).startswith(tuple(f"{scheme}:" for scheme in _SCHEMES))


def without_secrets(path: str) -> str:
    """An address as it may be printed."""
    return re.sub(r"(?<=:)(//?)[^/]*@", r"\1", path)


def names_catalogue(text: str) -> bool:
    """Whether an address has a catalogue's name in it."""
    path = urlsplit(text).path if is_milvus(text) else ""
    return bool(path.strip("/")) and not path.rstrip("/").endswith(".db")


def name_of(text: str) -> str:
    """A name that Milvus takes, from another one: "lf-amazon" is made "lf_amazon"."""
    name = re.sub(r"\W+", "_", text, flags=re.ASCII)
    return name if _NAME.fullmatch(name) else f"_{name}"[:200]


@dataclass(frozen=True, slots=True)
class Address:
    """A catalogue's address, taken apart.

    Attributes:
        uri: of the server, as pymilvus takes it, or the file of Milvus Lite.
        database: "" for the default one.
        name: of the catalogue; "" where none was given.
        shown: the whole of it as it may be printed.
        timeout: seconds that a request may take, with all its attempts.
        token: who asks; "" for nobody.
    """

    uri: str
    database: str
    name: str
    shown: str
    timeout: float = TIMEOUT
    token: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str, name: str | None = None) -> Address:
        """Take an address apart.

        Args:
            text: see the module.
            name: of the catalogue, where the address has none.

        Raises:
            InputError: it is no such address; what may hold a password is not repeated.
        """
        shown = without_secrets(text)
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise InputError(f"the address in Milvus cannot be read; {_FORM}") from None
        if parts.scheme not in _SCHEMES or parts.fragment or not text.isprintable():
            raise InputError(f"{shown!r}: no address in Milvus; {_FORM}")
        timeout = _timeout(parts.query, shown)
        path = [unquote(one) for one in parts.path.split("/")[1:] if one]
        if parts.hostname in (None, ".") and not parts.username:
            return cls._file(parts.netloc, parts.path, name, shown, timeout)
        if len(path) > 2 or not parts.hostname:
            raise InputError(f"{shown!r}: no address in Milvus; {_FORM}, or milvus://host:19530/database/catalogue")
        token = os.environ.get(TOKEN, "").strip()
        if parts.username is not None:
            token = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        if not token.isascii() or not token.isprintable():
            raise InputError(f"{TOKEN}: has characters that no token has; it is not shown here")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        uri = f"{_SCHEMES[parts.scheme]}://{host}:{port or _PORTS[parts.scheme]}"
        found, shown = _named(path[-1] if path else "", name, shown)
        return cls(uri, path[0] if len(path) == 2 else "", found, shown, timeout, token)

    @classmethod
    def _file(cls, begin: str, path: str, name: str | None, shown: str, timeout: float) -> Address:
        match = re.fullmatch(r"(?P<file>.*?\.db)(?:/(?P<name>[^/]*))?/?", unquote(begin + path))
        if not match:
            raise InputError(f"{shown!r}: names neither a server nor a file that ends in .db; {_FORM}")
        found, shown = _named(match["name"] or "", name, shown)
        return cls(match["file"], "", found, shown, timeout)


def _named(own: str, given: str | None, shown: str) -> tuple[str, str]:
    """The catalogue's name, and the address with it."""
    if own and given and own != given:
        raise InputError(f"{shown!r} and --name {given}: two names for one catalogue; give one")
    name = own or (given or "")
    if not own and name:
        begin, mark, query = shown.partition("?")
        shown = f"{begin.rstrip('/')}/{name}{mark}{query}"
    if not _NAME.fullmatch(name):
        wrong = f"no catalogue is named; {_FORM}" if not name else "a catalogue's name has letters, digits and _ only"
        raise InputError(f"{shown!r}: {wrong}")
    return name, shown


def _timeout(query: str, shown: str) -> float:
    values = parse_qs(query, keep_blank_values=True)
    try:
        if (
            set(values) - {"timeout"}
            or not 0 < (found := float(values.get("timeout", [TIMEOUT])[-1])) <= _LONGEST_TIMEOUT
        ):
            raise ValueError
    except ValueError:
        raise InputError(f"{shown!r}: after ? only timeout=SECONDS is accepted, at most {_LONGEST_TIMEOUT:g}") from None
    return found
