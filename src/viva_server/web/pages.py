"""The web chat's page and the operator's: fixed files, read once from the package."""

from __future__ import annotations

import gzip
import html
import posixpath
from collections.abc import Iterator
from hashlib import sha256
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final, Literal

from aiohttp import web

from viva_server.api.edge import Edge, Handler, Router

PageName = Literal["chat", "operator"]

INDEX: Final[dict[PageName, str]] = {
    "chat": "index.html",
    "operator": "operator/index.html",
}

_OPERATORS = "operator/"
_SHARED = frozenset(
    {"access.js", "api.js", "base.css", "dom.js", "icon.svg", "language.js"}
)

_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
_API_MARK = "{api}"
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; "
        "img-src 'self' data:; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
}


def add_page(
    app: web.Application, *, path: str, api_prefix: str, page: PageName = "chat"
) -> None:
    """Serve a page at `path` and its files below it.

    Raises:
        ValueError: the path does not begin with a slash.
    """
    if not path.startswith("/"):
        raise ValueError(f"the page's path must begin with a slash: {path!r}")
    folder = path.rstrip("/")
    router = Router(app, Edge(), folder)
    for name, content in page_files(page).items():
        if name == INDEX[page]:
            handler = _index(content, posixpath.relpath(api_prefix, folder or "/"))
            router.add("/", get=handler, head=handler)
        else:
            handler = _file(content, _TYPES[posixpath.splitext(name)[1]])
            router.add(f"/{name}", get=handler, head=handler)
    if folder:
        # Relative, so that it holds in a sub-application too.
        redirect = _redirect(posixpath.basename(folder) + "/")
        router.add("", get=redirect, head=redirect)


def page_files(page: PageName = "chat") -> dict[str, bytes]:
    """Read a page's files; keys are their paths below the page's own."""
    files = _files_in(resources.files("viva_server.web"), "")
    return {name: content for name, content in files if _is_of(name, page)}


def _is_of(name: str, page: PageName) -> bool:
    is_operators = name.startswith(_OPERATORS)
    return name in _SHARED or is_operators == (page == "operator")


def _files_in(folder: Traversable, base: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files_in(entry, f"{base}{entry.name}/")
        elif posixpath.splitext(entry.name)[1] in _TYPES:
            yield base + entry.name, entry.read_bytes()


def _index(content: bytes, api: str) -> Handler:
    # The page learns where the API is without inline code, which its CSP forbids.
    text = content.decode().replace(_API_MARK, html.escape(api))
    return _file(text.encode(), _TYPES[".html"])


def _file(content: bytes, content_type: str) -> Handler:
    packed = gzip.compress(content, mtime=0)
    digest = sha256(content).hexdigest()[:32]

    async def send(request: web.Request) -> web.StreamResponse:
        is_packed = "gzip" in request.headers.get("Accept-Encoding", "")
        # RFC 9110 § 8.8.3.3: another coding is another representation.
        etag = f"{digest}-gzip" if is_packed else digest
        if any(known.value == etag for known in request.if_none_match or ()):
            response = web.Response(status=304, headers=_HEADERS)
        else:
            response = web.Response(
                body=packed if is_packed else content,
                content_type=content_type,
                charset="utf-8",
                headers=_HEADERS,
            )
            if is_packed:
                response.headers["Content-Encoding"] = "gzip"
        response.etag = etag
        return response

    return send


def _redirect(location: str) -> Handler:
    async def redirect(_: web.Request) -> web.StreamResponse:
        return web.Response(status=308, headers={"Location": location})

    return redirect
