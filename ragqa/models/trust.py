"""What a model's folder must not ask for: code to run, files outside of it, weights that are pickles."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any, Final

from ragqa.errors import ModelError
from ragqa.json_files import UNREADABLE, read_json

# Given with every call of a library that loads: code that comes with a model is never run, and nothing is asked about it.
NO_CODE: Final[dict[str, Any]] = {"trust_remote_code": False, "local_files_only": True}
_OWN: Final = "sentence_transformers."
_LONGEST: Final = 100  # characters of a part's place


def check_modules(folder: Path, name: str) -> None:
    """Refuse a sentence-transformers folder whose parts are not that library's own, or not in safetensors.

    The library would import whatever class is named there, of some releases even from the folder itself, and read weights
    in another format that no hash of ours is about.

    Raises:
        ModelError: it names such a part.
    """
    file = folder / "modules.json"
    if not file.is_file():
        return
    try:
        parts = [(str(module["type"]), str(module["path"])) for module in read_json(file)]
    except UNREADABLE as error:
        raise ModelError(f"{name}: its modules.json is no list of modules; get the model anew") from error
    for kind, inside in parts:
        place = PurePosixPath(inside)
        if not kind.startswith(_OWN):
            raise ModelError(
                f"{name}: its modules.json names the class {kind[:80]!r}; code that comes with a model is not run: choose a "
                "model of sentence-transformers' own parts"
            )
        if place.is_absolute() or ".." in place.parts or "\\" in inside or "\0" in inside or len(inside) > _LONGEST:
            raise ModelError(f"{name}: its modules.json names the place {inside[:80]!r} outside of it; get it anew")
        if (folder / place / "pytorch_model.bin").is_file() and not any((folder / place).glob("*.safetensors")):
            raise ModelError(
                f"{name}: the weights in {place / 'pytorch_model.bin'} are a pickle; ragqa reads .safetensors alone: "
                "convert them, or choose another model"
            )
