"""Requests to Milvus, and all that can go wrong with one: told in a line, sent again where that may help."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from typing import Any, Final

from ragqa.errors import IndexNotFoundError, MilvusError, MissingDependencyError, RagqaError, first_line
from ragqa.milvus.address import TOKEN, Address

# Seconds for what a server does in its own time: to flush, to index, to load.
PATIENCE: Final = 3600.0
# Seconds before the second attempt; each further one waits twice as long, less up to half of it by chance.
_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0
# Milvus's own numbers.
_CONNECT_FAILED: Final = 2
_NOT_FOUND: Final = 100
_NOT_LOADED: Final = 101
_NOT_THERE: Final = (4, _NOT_FOUND, 1600)  # 1600: no such alias
_PASSING: Final = (_CONNECT_FAILED, 8)  # 8: too many requests


def import_pymilvus() -> Any:
    """The pymilvus module, which says nothing by itself.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import pymilvus
    except ImportError as error:
        raise MissingDependencyError(
            f"a catalogue in Milvus needs the package {error.name or 'pymilvus'}; install it with: "
            "pip install 'ragqa[milvus]'"
        ) from error
    # It logs each failed attempt with its traceback; what fails in the end is raised.
    for name in ("pymilvus", "pymilvus.milvus_client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return pymilvus


class Connection:
    """A connection to the Milvus of an address. It may be shared between threads.

    Raises:
        MissingDependencyError: pymilvus, or for a file milvus-lite, is not installed.
        MilvusError: there is no Milvus, or it refuses.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._milvus = import_pymilvus()
        self._loading = threading.Lock()
        if address.uri.endswith(".db"):
            _import_lite()
        self._client: Any = None
        self._client = self._patiently(
            lambda left: self._milvus.MilvusClient(
                address.uri, token=address.token, db_name=address.database, timeout=left
            ),
            address.timeout,
        )

    def call(self, method: str, *args: Any, timeout: float | None = None, again: bool = True, **kwargs: Any) -> Any:
        """Call a method of `pymilvus.MilvusClient`.

        Args:
            method: its name.
            timeout: seconds, with all attempts; None takes the address's.
            again: whether it may be sent again after a lost connection.

        Raises:
            IndexNotFoundError: there is no such collection.
            MilvusError: it cannot be reached, refuses, or fails.
        """
        send = getattr(self._client, method)
        patience = self.address.timeout if timeout is None else timeout
        return self._patiently(lambda left: send(*args, timeout=left, **kwargs), patience, again)

    def read(self, method: str, collection: str, **kwargs: Any) -> Any:
        """Search or query a collection; one that a server no longer has loaded, since it began anew, is loaded."""
        try:
            return self.call(method, collection, **kwargs)
        except NotLoadedError:
            with self._loading:
                self.call("load_collection", collection, timeout=PATIENCE)
            return self.call(method, collection, **kwargs)

    def has(self, collection: str) -> bool:
        """Whether there is such a collection, or alias."""
        return bool(self.call("has_collection", collection))

    def aliased(self) -> str | None:
        """The collection behind the catalogue's name; None where there is none."""
        with contextlib.suppress(IndexNotFoundError):
            return str(self.call("describe_alias", self.address.name)["collection_name"])
        return None

    def _patiently(self, send: Any, patience: float, again: bool = True) -> Any:
        grpc = _grpc()
        until, pause = time.monotonic() + patience, _PAUSE
        while True:
            try:
                return send(max(until - time.monotonic(), 0.001))
            except (grpc.RpcError, self._milvus.MilvusException) as error:
                wait = pause * random.uniform(0.5, 1)  # noqa: S311  (not for secrets)
                if not again or not _passing(grpc, error) or time.monotonic() + wait >= until:
                    raise self._told(grpc, error, patience) from error
                time.sleep(wait)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _told(self, grpc: Any, error: Any, patience: float) -> RagqaError:
        """One of our errors for one of theirs."""
        where, code = self.address.shown, _code(grpc, error)
        lost = "is a server there?" if self._client is None else "the connection was lost"
        if code == _NOT_LOADED:
            return NotLoadedError(f"{where}: its collection is not loaded")
        if code in _NOT_THERE:
            return IndexNotFoundError(f"{where}: is not there any more, or was replaced; open it anew")
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return MilvusError(f"{where}: Milvus did not answer within {patience:g} s; ?timeout= gives it more")
        if _passing(grpc, error):
            return MilvusError(f"{where}: Milvus cannot be reached for {patience:g} s; {lost}")
        if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED) or "auth" in str(error).lower():
            return MilvusError(f"{where}: Milvus does not let you in; give user:password or a key in {TOKEN}")
        if code == grpc.StatusCode.UNIMPLEMENTED or "UNIMPLEMENTED" in str(error):
            return MilvusError(f"{where}: is no Milvus, or one too old for this: 2.5 and later are accepted")
        said = getattr(error, "message", None) or (error.details() if hasattr(error, "details") else error)
        return MilvusError(f"{where}: Milvus says: {first_line(Exception(said))}")


class NotLoadedError(MilvusError):
    """A collection is there and not loaded."""


def _code(grpc: Any, error: Any) -> Any:
    return error.code() if isinstance(error, grpc.RpcError) else error.code


def _passing(grpc: Any, error: Any) -> bool:
    """Whether it may be gone when the request is sent again."""
    code = _code(grpc, error)
    return code == grpc.StatusCode.UNAVAILABLE or code in _PASSING


def _grpc() -> Any:
    import grpc

    return grpc


def _import_lite() -> None:
    try:
        import milvus_lite
    except ImportError as error:
        raise MissingDependencyError(
            "a file of Milvus Lite needs the package milvus-lite; install it with: pip install 'ragqa[milvus]'"
        ) from error
    del milvus_lite
