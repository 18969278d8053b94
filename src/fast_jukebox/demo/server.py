"""The studio's own routes: sound while it is made, files, pictures, results; and headers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fast_jukebox.demo.html import ADDRESS
from fast_jukebox.demo.sounds import is_token
from fast_jukebox.demo.studio import Studio

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_TYPES = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "notes.png": "image/png",
    "spectrogram.png": "image/png",
    "alignment.png": "image/png",
    "tally.csv": "text/csv",
    "tally.json": "application/json",
}
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' ws: wss: data: blob:; "
    "object-src 'none'; base-uri 'self'"
)
_UNCACHED = {"cache-control": "private, no-store"}
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


def routes(studio: Studio) -> list[Route]:
    """Routes of a studio, for Gradio's application."""
    from starlette.responses import FileResponse, PlainTextResponse, StreamingResponse
    from starlette.routing import Route

    def live(request: Request) -> Response:
        found = studio.sounds.live(request.path_params["token"])
        if found is None:
            return PlainTextResponse("there is no such sound (any more)", 404)
        return StreamingResponse(found.chunks(), media_type="application/octet-stream", headers=_UNCACHED)

    def file(request: Request) -> Response:
        token, name = request.path_params["token"], request.path_params["name"]
        try:
            path = _file(studio, token, name)
        except (ImportError, OSError, ValueError) as error:
            return PlainTextResponse(studio.message(error), 500)
        if path is None:
            return PlainTextResponse("there is no such file (any more)", 404)
        return FileResponse(path, media_type=_TYPES[name], headers=_UNCACHED)

    return [
        Route(f"/{ADDRESS}/live/{{token}}", live),
        Route(f"/{ADDRESS}/sound/{{token}}/{{name}}", file),
        Route(f"/{ADDRESS}/test/{{token}}/{{name}}", file),
    ]


def _file(studio: Studio, token: str, name: str) -> Path | None:
    """The file that an address names; no text of the address becomes a path unless it is a token or a known name."""
    if not is_token(token) or name not in _TYPES:
        return None
    if name.startswith("tally."):
        path = studio.tests_folder / token / name
        return path if path.is_file() else None
    if name.endswith(".png"):
        return studio.sounds.picture(token, name.removesuffix(".png"))
    return studio.sounds.file(token, name)


class Headers:
    """Middleware that adds headers to every answer: a page loads nothing from anywhere else, so that it works without a
    network and sends nothing to others. Before an upload it makes room.
    """

    def __init__(self, app: ASGIApp, studio: Studio) -> None:
        self._app, self._studio = app, studio

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        if scope["type"] == "http" and scope["path"].endswith("/upload"):
            self._studio.make_upload_room()
        await self._app(scope, receive, sent if scope["type"] == "http" else send)
