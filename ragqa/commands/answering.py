"""How questions are answered and by which models: options of `ragqa ask` and `ragqa serve`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, get_args

from ragqa.commands.options import given
from ragqa.errors import InputError
from ragqa.generation.server import KEY, RETRIES, TIMEOUT, Server
from ragqa.models import DEFAULT_GENERATOR
from ragqa.settings import AnswerSettings, Decoding, Fusion, Lexical

if TYPE_CHECKING:
    from ragqa.answerer import Answerer


def add_answering(parser: argparse.ArgumentParser) -> None:
    """Settings of `AnswerSettings`."""
    default = AnswerSettings()
    parser.add_argument("--top-k", type=int, default=None, help=f"sources to show (default: {default.top_k})")
    parser.add_argument(
        "--context-products", type=int, help=f"of them in the prompt (default: {default.context_products})"
    )
    parser.add_argument("--context-tokens", type=int, help=f"limit of the prompt (default: {default.context_tokens})")
    parser.add_argument("--max-new-tokens", type=int, help=f"limit of the answer (default: {default.max_new_tokens})")
    parser.add_argument(
        "--max-question-chars",
        type=int,
        help=f"longer questions are refused (default: {default.max_question_chars})",
    )
    parser.add_argument(
        "--min-confidence",
        type=float,
        help=f"abstain below this probability of the right product (default: {default.min_confidence})",
    )
    parser.add_argument(
        "--precision",
        type=float,
        metavar="SHARE",
        help="abstain where more than the rest would be wrong, by the index's validation questions",
    )
    parser.add_argument(
        "--decoding",
        choices=get_args(Decoding),
        help="extractive: the source's own words; copy: the same without asking the generator; free: the generator "
        "writes (default: auto, extractive but with a plain adapter)",
    )
    parser.add_argument(
        "--temperature", type=float, help="of free decoding; 0 takes the likeliest token each time (default: 0)"
    )
    parser.add_argument("--seed", type=int, help="of tokens that are drawn (default: 0)")
    parser.add_argument("--stop", action="append", metavar="TEXT", help="ends a freely written answer; may be repeated")
    parser.add_argument("--fusion", choices=get_args(Fusion), help=f"of both searches (default: {default.fusion})")
    parser.add_argument("--lexical", choices=get_args(Lexical), help=f"search by words (default: {default.lexical})")
    parser.add_argument(
        "--rerank-depth", type=int, metavar="N", help=f"candidates a reranker reads (default: {default.rerank_depth})"
    )
    parser.add_argument("--batch-size", type=int, help=f"prompts read at once (default: {default.batch_size})")
    parser.add_argument(
        "--max-seconds",
        type=float,
        metavar="SECONDS",
        help="for one question; what is being written ends then (default: no limit)",
    )


def add_models(parser: argparse.ArgumentParser) -> None:
    """Generator, adapter, reranker, embedder, a server for the generator, and the index's checks."""
    parser.add_argument("--generator", metavar="ID", help=f"a language model (default: {DEFAULT_GENERATOR})")
    parser.add_argument("--adapter", metavar="FOLDER", help="a LoRA adapter for it, or one merged or exported")
    parser.add_argument("--reranker", metavar="ID", help="a cross-encoder that reads the first candidates again")
    parser.add_argument("--embedder", metavar="ID", help="where the index's embedder lies now, if it moved")
    parser.add_argument(
        "--server",
        metavar="URL",
        help="have the generator run there, such as http://localhost:8000/v1 (vLLM, llama.cpp's server, Ollama with "
        f"TEMPLATE {{{{ .Prompt }}}}); the key, if it wants one, is taken from {KEY}",
    )
    parser.add_argument("--server-model", metavar="NAME", help="its name for the model (default: the only one it has)")
    parser.add_argument(
        "--server-timeout",
        type=float,
        metavar="SECONDS",
        help=f"how long it may be silent (default: {TIMEOUT:g})",
    )
    parser.add_argument(
        "--server-retries",
        type=int,
        metavar="N",
        help=f"how often it is asked again where that may help (default: {RETRIES})",
    )
    parser.add_argument(
        "--verify",
        choices=("auto", "full", "sizes"),
        default="auto",
        help="how the index is checked: sizes and both ends of its parts, in full, or in full below 2 GB (default: auto)",
    )


def chosen_server(chosen: argparse.Namespace) -> Server | None:
    """The server that runs the generator, if one was named."""
    patience = given(chosen, ("server_model", "server_timeout", "server_retries"))
    if chosen.server is None:
        for name in patience:
            raise InputError(f"--{name.replace('_', '-')}: there is no server; name one with --server")
        return None
    return Server(chosen.server, **{name.removeprefix("server_"): value for name, value in patience.items()})


def opening(chosen: argparse.Namespace, server: Server | None) -> dict[str, Any]:
    """What was named, for `Answerer.from_pretrained`."""
    return {
        "path": chosen.index,
        "generator": chosen.generator,
        "adapter": chosen.adapter,
        "embedder": chosen.embedder,
        "reranker": chosen.reranker,
        "device": chosen.device,
        "dtype": chosen.dtype,
        "verify": chosen.verify,
        "server": server,
    }


def opened(chosen: argparse.Namespace, server: Server | None) -> Answerer:
    """The index and the models that were named."""
    from ragqa.answerer import Answerer

    answerer = Answerer.from_pretrained(**opening(chosen, server))
    if chosen.rerank_depth and answerer.reranker_name is None:
        raise InputError("--rerank-depth: there is no reranker; name one with --reranker")
    return answerer
