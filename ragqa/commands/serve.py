"""Answer questions over HTTP: /v1/ask, /v1/search, /v1/chat/completions, and a page to ask on.

/openapi.json describes every route. A new generation of the index is taken into service as soon as `ragqa update` or
`build-index` has written it. SIGTERM finishes what was accepted and ends with status 0.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
from typing import TYPE_CHECKING

from ragqa.commands.answering import add_answering, add_models, chosen_server, opened
from ragqa.commands.options import add_common, add_device, given
from ragqa.errors import MissingDependencyError
from ragqa.index.generations import live_generation
from ragqa.milvus.address import Address, is_milvus
from ragqa.models import is_hub_id
from ragqa.saved import SAVED
from ragqa.settings import AnswerSettings

if TYPE_CHECKING:
    from ragqa.answerer import Answerer
    from ragqa.serving.compare import Comparison

EXAMPLE = "example: python -m ragqa.serve indexes/demo --port 8000"
# Seconds after which a thread gives way to another that waits for Python. With the usual 5 ms event loop and workers wait
# long for each other: 140 answers a second at 16 clients against 181 (2 cores, descriptions copied).
_SWITCH = 0.001
AFTER_INTERRUPT = "nothing was left behind"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ragqa serve`."""
    parser.add_argument(
        "index", metavar="INDEX", help="an index folder, a saved Answerer, a Hub id, or milvus://HOST:PORT/CATALOGUE"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes any that is free (default: %(default)s)")
    _add_limits(parser)
    _add_comparison(parser)
    add_answering(parser)
    add_models(parser)
    add_device(parser)
    add_common(parser)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the service")
    for flag, kind, what in (
        ("--max-batch", int, "questions done together at most (default: 16)"),
        ("--max-queue", int, "questions waiting or in work; more are refused with 503 (default: 256)"),
        ("--max-wait", float, "refuse with 503 what would wait longer, in seconds (default: 3)"),
        ("--max-streams", int, "answers streamed in turns (default: 8)"),
        ("--timeout", float, "seconds from a request to its answer; then 504 (default: 30)"),
        ("--drain", float, "seconds that accepted requests get after SIGTERM (default: 30)"),
        ("--max-body", int, "bytes of a request's body; more are refused with 413 (default: 262144)"),
        ("--max-questions", int, "questions in one request (default: 64)"),
        ("--header-timeout", float, "seconds for the head of a request (default: 10)"),
        ("--body-timeout", float, "seconds for its body (default: 10)"),
        ("--send-timeout", float, "seconds that a client may take nothing of its response (default: 20)"),
        ("--keep-alive", int, "seconds that an idle connection is kept (default: 15)"),
        ("--max-connections", int, "open connections (default: 1000)"),
        ("--rate", float, "questions a minute for each key or address; more are refused with 429 (default: no limit)"),
        ("--burst", int, "questions at once within the rate (default: 20)"),
    ):
        group.add_argument(flag, type=kind, metavar="N", help=what)
    group.add_argument(
        "--api-key-file", metavar="FILE", help="keys, one a line; also taken from RAGQA_API_KEYS (default: no keys)"
    )
    group.add_argument(
        "--cors-origin", action="append", dest="cors_origins", metavar="ORIGIN",
        help="whose pages may call the service; may be repeated (default: none)",
    )  # fmt: skip
    group.add_argument("--log-questions", action="store_true", default=None, help="write questions to the log")


def _add_comparison(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the comparison: /v1/compare, and the page's second tab")
    group.add_argument(
        "--compare", action="store_true", help="compare ways of answering; the base model is loaded when first asked"
    )
    group.add_argument("--compare-plain", metavar="ADAPTER", help="the same, with what fine-tune --mode plain wrote")
    group.add_argument("--compare-retrieval", metavar="ADAPTER", help="the same, with that of --mode retrieval")


def run(chosen: argparse.Namespace) -> int:
    """Run `ragqa serve`."""
    try:
        import fastapi
        import prometheus_client
        import uvicorn
    except ImportError as error:
        raise MissingDependencyError(
            f"the service needs the package {error.name or 'fastapi'}; install it with: pip install 'ragqa[serve]'"
        ) from error
    del fastapi, prometheus_client, uvicorn
    from ragqa.serving.access import read_keys
    from ragqa.serving.limits import ServiceSettings

    # Told before anything is loaded.
    AnswerSettings.from_dict(given(chosen, AnswerSettings.__slots__))
    chosen_server(chosen)
    origins = tuple(chosen.cors_origins or ())
    chosen.cors_origins = origins or None
    limits = ServiceSettings.from_dict(given(chosen, ServiceSettings.__slots__))
    keys = read_keys(chosen.api_key_file)
    _check_index(chosen.index)

    from ragqa.serving import compare
    from ragqa.serving.app import create_app
    from ragqa.serving.server import Server, log_to_stderr, open_socket
    from ragqa.serving.service import Service

    log_to_stderr(chosen.quiet)
    sys.setswitchinterval(_SWITCH)
    with open_socket(chosen.host, chosen.port) as listening:
        comparison = _comparison(chosen)
        service = Service(lambda: _load(chosen, comparison), limits, chosen.verify)
        further = [compare.routes(service, comparison)] if comparison else []
        server = Server(create_app(service, keys, further), service)
        host, port = listening.getsockname()[:2]
        print(f"http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
        if not keys and not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
            print("warning: whoever reaches this address may ask; --api-key-file asks for keys", file=sys.stderr)
        server.run(sockets=[listening])
    if service.failure is not None:
        raise service.failure
    if not chosen.quiet:
        print("stopped", file=sys.stderr)
    if not service.ended:
        # A model that computes while Python ends may crash it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


def _check_index(name: str) -> None:
    """Say at once where there is no index; whether it can be used shows when it is opened."""
    from pathlib import Path

    if is_milvus(name):
        Address.parse(name)
        return
    folder = Path(name)
    if not folder.exists() and is_hub_id(name):
        return
    live_generation(folder / "index" if (folder / SAVED).exists() else folder)


def _comparison(chosen: argparse.Namespace) -> Comparison | None:
    """The arms, if they were asked for."""
    if not (chosen.compare or chosen.compare_plain or chosen.compare_retrieval):
        return None
    from ragqa.comparison.side_by_side import side_by_side
    from ragqa.serving.compare import Comparison

    return Comparison(
        lambda answerer: side_by_side(
            answerer,
            plain=chosen.compare_plain,
            retrieval=chosen.compare_retrieval,
            own=chosen.server is None,
            device=chosen.device,
            dtype=chosen.dtype,
        )
    )


def _load(chosen: argparse.Namespace, comparison: Comparison | None = None) -> Answerer:
    """The answerer, with its models loaded."""
    answerer = opened(chosen, chosen_server(chosen))
    answerer.settings = AnswerSettings.from_dict(answerer.settings.to_dict() | given(chosen, AnswerSettings.__slots__))
    if comparison:
        comparison.open(answerer)
    if answerer.settings.decoding != "copy":
        _ = answerer.generator
    _ = answerer.reranker
    return answerer
