"""A generator's name -> the generator: with its weights on this machine, or on a server that runs it."""

from __future__ import annotations

from typing import Any, cast

from ragqa import models
from ragqa.errors import ModelError
from ragqa.generation.adapter import Adapter
from ragqa.generation.caches import can_roll_back
from ragqa.generation.choice import Choice
from ragqa.generation.generator import Generator
from ragqa.generation.remote import connect
from ragqa.generation.server import Server
from ragqa.models.attention import use_blocks
from ragqa.models.llama import LlamaReader
from ragqa.models.precision import pack_linear
from ragqa.progress import say


def open_generator(
    name: str,
    device: str = "auto",
    dtype: str = "auto",
    *,
    adapter: str | None = None,
    trained: Adapter | None = None,
    choice: Choice | None = None,
    server: Server | None = None,
) -> tuple[Generator, models.ModelSource]:
    """Load a generator, or find the server that runs it; and where its files were taken from.

    Args:
        name: a Hub id or a local folder.
        device, dtype: see `models.load_generator`; they are the server's own where there is one.
        adapter: a folder with a LoRA adapter for the model; a server has to have it under the name that it is asked for.
        trained: what the adapter, or the model one was merged into, says of itself.
        choice: see `Generator`.
        server: which server runs it; None for this machine.

    Raises:
        ModelError: it cannot be found or loaded, or the adapter was trained on another one.
        ServerError: the server does not say which model it has, and was named none.
    """
    try:
        if server is not None:
            remote, source = connect(server, name, choice)
            # Of a generator nothing is used but what both kinds have.
            return cast(Generator, remote), source
        model, tokenizer, source = models.load_reader(name, device, dtype, adapter=adapter)
    except ModelError as error:
        if trained is None or trained.merged:
            raise
        raise ModelError(
            f"{error} (the base model {adapter} was trained on is {trained.base['name']}; if it moved, name it with "
            "--generator)"
        ) from error
    if trained and not trained.merged:
        trained.check_base(source)
    if trained:
        trained.check_files()
    say(f"generator {source}, {models.describe(model)}")
    return Generator(ready_to_read(model), tokenizer, choice), source


def ready_to_read(model: Any) -> Any:
    """A model that is only asked from now on, made faster where it is one that this is known of.

    An adapter is merged into the weights, which else takes a third of the time of a prompt; for the rest see `pack_linear`
    and `use_blocks`. What was given is not to be used any more.
    """
    if isinstance(model, LlamaReader):
        return model
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload(safe_merge=True)
    # Others, such as state-space models, look into their layers' weights.
    if model.device.type == "cpu" and can_roll_back(model, 1):
        pack_linear(model)
        use_blocks(model)
    return model
