"""A model's name -> the model, ready to use, and where it was taken from."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ragqa.errors import ModelError, first_line
from ragqa.folders import readable
from ragqa.json_files import UNREADABLE, read_json
from ragqa.models.device import choose_device, choose_dtype
from ragqa.models.packaged import DEFAULT_EMBEDDER, DEFAULT_GENERATOR, PACKAGED, in_package
from ragqa.models.source import ModelSource, in_folder, is_hub_id, on_hub, quiet
from ragqa.models.trust import NO_CODE, check_modules

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from ragqa.models.llama import LlamaReader

_CROSS_ENCODER: Final = "cross-encoder/ms-marco-MiniLM-L6-v2"  # for messages


def find_model(name: str, weights: bool = True) -> ModelSource:
    """Find the files of a model, fetching them from the Hub if they are not on this machine.

    Args:
        name: a Hub id or a local folder.
        weights: without, they are neither looked for nor fetched: tokenizer and configuration will do.

    Raises:
        ModelError: there is no such model, it cannot be reached, or it wants code to be run.
    """
    found: ModelSource | str
    if name and readable(Path(name)).is_dir():
        found = in_folder(name, weights)
    elif is_hub_id(name):
        found = on_hub(name, weights)
    else:
        raise ModelError(f"{name}: no such folder; a model is a local folder or a Hub id such as {DEFAULT_EMBEDDER}")
    if isinstance(found, ModelSource):
        check_modules(found.folder, name)
        return found
    packaged = PACKAGED.get(name)
    if packaged is None:
        raise ModelError(
            f"{name}: {found}; name a local folder, or one of the models that PyPI packages carry: "
            + ", ".join(PACKAGED)
        )
    return in_package(name, packaged, found)


def load_embedder(
    name: str = DEFAULT_EMBEDDER, device: str = "auto", dtype: str = "auto"
) -> tuple[SentenceTransformer, ModelSource]:
    """Load a sentence-transformers model. In 16 bits only its matrix products are, see `ragqa.models.precision`.

    Raises:
        ModelError: it cannot be found or is no sentence encoder.
    """
    source = find_model(name)
    place = choose_device(device)
    number_format = choose_dtype(dtype, place)
    import torch
    from sentence_transformers import SentenceTransformer

    from ragqa.models.precision import halve_linear

    try:
        with quiet():
            model = SentenceTransformer(
                str(source.folder),
                device=place,
                **NO_CODE,
                model_kwargs={"dtype": torch.float32, "use_safetensors": True},
            )
            if number_format != torch.float32:
                halve_linear(model, number_format)
    except Exception as error:  # a hostile or broken folder raises anything
        raise ModelError(f"{name}: cannot be loaded as a sentence encoder ({first_line(error)})") from error
    return model, source


def load_reranker(name: str, device: str = "auto", dtype: str = "auto") -> tuple[CrossEncoder, ModelSource]:
    """Load a sentence-transformers CrossEncoder that gives a pair of texts one score.

    Raises:
        ModelError: it cannot be found, is no cross-encoder, or has more than one label.
    """
    source = find_model(name)
    place = choose_device(device)
    number_format = choose_dtype(dtype, place)
    _check_cross_encoder(source)
    from sentence_transformers import CrossEncoder

    try:
        with quiet():
            model = CrossEncoder(
                str(source.folder),
                device=place,
                **NO_CODE,
                model_kwargs={"dtype": number_format, "use_safetensors": True},
            )
    except Exception as error:  # a hostile or broken folder raises anything
        raise ModelError(f"{name}: cannot be loaded as a cross-encoder ({first_line(error)})") from error
    if model.num_labels != 1:
        raise ModelError(
            f"{name}: has {model.num_labels} labels, and a reranker needs one, the relevance; choose a cross-encoder such "
            f"as {_CROSS_ENCODER}"
        )
    return model, source


def _check_cross_encoder(source: ModelSource) -> None:
    """Refuse what the library would turn into a cross-encoder by adding weights that were never trained."""
    kinds = []
    for file, field in (("config_sentence_transformers.json", "model_type"), ("config.json", "architectures")):
        try:
            kinds.append(read_json(source.folder / file)[field])
        except UNREADABLE:
            kinds.append(None)
    made, architectures = kinds
    classifies = isinstance(architectures, list) and any("ForSequenceClassification" in str(a) for a in architectures)
    if made != "CrossEncoder" and not classifies:
        raise ModelError(f"{source.name}: is no cross-encoder; choose one such as {_CROSS_ENCODER}")


def load_generator(
    name: str = DEFAULT_GENERATOR, device: str = "auto", dtype: str = "auto", adapter: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, ModelSource]:
    """Load a language model, causal or encoder-decoder, and its tokenizer, ready to generate (padding on the left).

    Args:
        name: a Hub id or a local folder.
        device, dtype: see `choose_device` and `choose_dtype`.
        adapter: a folder with a LoRA adapter (peft) for the model.

    Raises:
        ModelError: it cannot be found or is no such model.
    """
    adapter = _checked_adapter(adapter)
    source = find_model(name)
    place = choose_device(device)
    number_format = choose_dtype(dtype, place)
    tokenizer = load_tokenizer(source)
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    try:
        with quiet():
            config = AutoConfig.from_pretrained(source.folder, **NO_CODE)
            kind: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
            model: Any = kind.from_pretrained(source.folder, **NO_CODE, dtype=number_format, use_safetensors=True)
            if adapter is not None:
                from peft import PeftModel

                model = PeftModel.from_pretrained(model, adapter)
    except Exception as error:  # a hostile or broken folder raises anything
        raise ModelError(f"{name}: cannot be loaded as a language model ({first_line(error)})") from error
    return model.to(place).eval(), tokenizer, source


def load_reader(
    name: str = DEFAULT_GENERATOR, device: str = "auto", dtype: str = "auto", adapter: str | None = None
) -> tuple[PreTrainedModel | LlamaReader, PreTrainedTokenizerBase, ModelSource]:
    """The same, for reading and writing alone: on a CPU a `LlamaReader` where the model is of that kind.

    Args, Raises: see `load_generator`.
    """
    adapter = _checked_adapter(adapter)
    place = choose_device(device)
    if place == "cpu":
        from ragqa.models.llama_files import read_llama

        source = find_model(name)
        # Who asks for a model says which it was; a thread that computes hashes leaves the other one to read.
        with ThreadPoolExecutor(1) as beside:
            beside.submit(getattr, source, "weights_sha256")
            tokenizer = load_tokenizer(source)
            if reader := read_llama(source.folder, choose_dtype(dtype, place), adapter):
                return reader, tokenizer, source
    return load_generator(name, device, dtype, adapter)


def _checked_adapter(adapter: str | None) -> str | None:
    """Where an adapter's files lie."""
    if adapter is None:
        return None
    folder = readable(Path(adapter))
    for needed in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / needed).is_file():
            raise ModelError(f"{adapter}: no LoRA adapter in this folder ({needed} is missing)")
    return str(folder)


def load_configuration(source: ModelSource) -> PretrainedConfig:
    """Load a language model's configuration.

    Raises:
        ModelError: it has none.
    """
    from transformers import AutoConfig

    try:
        with quiet():
            configuration: PretrainedConfig = AutoConfig.from_pretrained(source.folder, **NO_CODE)
    except Exception as error:  # a hostile or broken folder raises anything
        raise ModelError(f"{source.name}: cannot be loaded as a language model ({first_line(error)})") from error
    return configuration


def _tokenizer_class(folder: Path) -> Any:
    """The class of a folder's tokenizer: where it says that it is all in tokenizer.json, the one that reads that.

    `AutoTokenizer` comes to the same, but imports the models' code first, which takes 1.5 s.
    """
    said = None
    with contextlib.suppress(*UNREADABLE):
        said = read_json(folder / "tokenizer_config.json").get("tokenizer_class")
    if said in ("TokenizersBackend", "PreTrainedTokenizerFast") and (folder / "tokenizer.json").is_file():
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast
    from transformers import AutoTokenizer

    return AutoTokenizer


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """Load a language model's tokenizer, padding on the left.

    Raises:
        ModelError: it has none, or one without a fast form.
    """
    try:
        with quiet():
            tokenizer: PreTrainedTokenizerBase = _tokenizer_class(source.folder).from_pretrained(
                source.folder, **NO_CODE
            )
    except Exception as error:  # a hostile or broken folder raises anything
        raise ModelError(f"{source.name}: cannot be loaded as a language model ({first_line(error)})") from error
    try:
        tokenizer("a [1]")
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001  (a panic of Rust's is no Exception)
        raise ModelError(f"{source.name}: its tokenizer cannot be used ({first_line(error)})") from None
    if not tokenizer.is_fast:
        raise ModelError(
            f"{source.name}: its tokenizer has no fast form, which tells where in a text a token stands; choose another"
        )
    if tokenizer.pad_token_id is None:
        # Padding is masked, so any token will do.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    tokenizer.padding_side = "left"
    return tokenizer
