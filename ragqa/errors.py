"""Every error that ragqa raises on purpose.

::

    RagqaError
    ├── InputError                 something the caller gave: a file, a row, an option, a question
    │   ├── CatalogueError         a catalogue cannot be read, or holds nothing usable
    │   └── QuestionError          a question is empty or too long
    ├── TimeLimitError             a question was not answered in the time it was given
    ├── ModelError                 a model is unknown, unreachable or unfit
    ├── ServerError                a server, that of the generator, does not answer as it should
    │   └── MilvusError            Milvus does not
    ├── ClusterError               a Ray cluster cannot be reached, or fails
    ├── ProductIndexError          a product index on disk
    │   ├── IndexNotFoundError     no index there, or none finished
    │   ├── IndexMismatchError     made by another format version or another embedder
    │   └── IndexDamagedError      a part is missing, cut short or changed
    ├── StorageError               the disk: full, read-only, unwritable
    ├── BusyError                  another process is writing there
    ├── ProcessError               another process of the same training failed, or was killed
    └── MissingDependencyError     an optional or clashing package

Each message is one line that says what was wrong, where, what is accepted, and how to mend it. The command
line prints it and exits with status 2.
"""

from __future__ import annotations


class RagqaError(Exception):
    """Base of all errors raised on purpose."""


class InputError(RagqaError, ValueError):
    """Something the caller gave cannot be used."""


class CatalogueError(InputError):
    """A catalogue cannot be read, or holds nothing usable."""


class QuestionError(InputError):
    """A question is empty or longer than the limit."""


class TimeLimitError(RagqaError, TimeoutError):
    """A question was not answered in the time it was given."""


class ModelError(RagqaError):
    """A model is unknown, unreachable or unfit for its use."""


class ServerError(RagqaError):
    """The server that runs the generator cannot be reached, refuses, fails, or answers nonsense."""


class MilvusError(ServerError):
    """Milvus cannot be reached, refuses, fails, or answers nonsense."""


class ClusterError(RagqaError):
    """A Ray cluster cannot be reached, does not fit, or fails."""


class ProductIndexError(RagqaError):
    """A product index on disk cannot be used."""


class IndexNotFoundError(ProductIndexError):
    """There is no index at that place, or none that was finished."""


class IndexMismatchError(ProductIndexError):
    """The index was made by another format version or another embedder."""


class IndexDamagedError(ProductIndexError):
    """A part of the index is missing, cut short or changed."""


class StorageError(RagqaError):
    """The disk is full, read-only, or the folder cannot be written."""


class BusyError(RagqaError):
    """Another process is writing to the same folder."""


class ProcessError(RagqaError):
    """Another process of the same training failed, was killed, or cannot be found.

    Attributes:
        told: that process said why.
    """

    def __init__(self, message: str, told: bool = False) -> None:
        super().__init__(message)
        self.told = told


class MissingDependencyError(RagqaError, ImportError):
    """A package that is needed is missing, or two packages clash."""


def first_line(error: BaseException) -> str:
    """The beginning of another library's message, for one of ours."""
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
