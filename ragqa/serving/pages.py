"""The page: files beside this module, served as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastapi import APIRouter
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

PAGE: Final = Path(__file__).parent / "page"
_PLAIN: Final = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>ragqa</title><h1>ragqa</h1>'
    '<p>Ask with <code>POST /v1/ask</code>; <a href="/openapi.json">/openapi.json</a> describes all routes.</p></html>'
)


class PageFiles(StaticFiles):
    """Files that are asked about again each time, and sent when they have changed."""

    def file_response(self, *given: object, **named: object) -> Response:
        """A file, or that it has not changed."""
        response = super().file_response(*given, **named)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = "no-cache"
        return response

    async def __call__(self, scope: Scope, receive: object, send: object) -> None:
        """Serve one file."""
        await super().__call__(scope, receive, send)  # type: ignore[arg-type]


def files() -> StaticFiles:
    """What is under /static."""
    return PageFiles(directory=PAGE, check_dir=False)


def routes() -> APIRouter:
    """The page itself."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def page() -> Response:
        index = PAGE / "index.html"
        if index.is_file():
            return FileResponse(index, media_type="text/html; charset=utf-8", headers={"Cache-Control": "no-cache"})
        return HTMLResponse(_PLAIN)

    @router.get("/favicon.ico")
    async def icon() -> Response:
        icon = PAGE / "favicon.svg"
        return FileResponse(icon, media_type="image/svg+xml") if icon.is_file() else Response(status_code=204)

    return router
