"""The application: routes, errors, the guard around it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

import ragqa
from ragqa.serving import chat, pages, problems, routes
from ragqa.serving.access import Keys
from ragqa.serving.guard import Guard
from ragqa.serving.service import Service

_ABOUT = (
    "Sourced answers over a product catalogue. Errors are problem documents (RFC 9457); a request that is refused for want "
    "of room says in Retry-After when to try again."
)


def create_app(service: Service, keys: Sequence[str] = (), further: Sequence[APIRouter] = ()) -> Guard:
    """The service as an ASGI application; it loads, works and drains with its lifespan.

    Args:
        service: answers.
        keys: API keys; without any everybody may ask.
        further: routes beside these, such as those of the comparison.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="ragqa",
        version=ragqa.__version__,
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    for router in (routes.routes(service), chat.routes(service), *further, pages.routes()):
        app.include_router(router)
    app.mount("/static", pages.files())
    for kind in (RequestValidationError, HTTPException, problems.Problem, Exception):
        app.add_exception_handler(kind, problems.handle)
    if service.limits.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(service.limits.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Retry-After", "X-Request-Id"],
        )
    return Guard(app, service, Keys(keys))
