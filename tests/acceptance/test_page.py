"""The web chat and the operator's page as bytes: what is served, how, its weight."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import resources
from pathlib import PurePosixPath

import pytest
from aiohttp import ClientSession, web

from tests.chat_host import Answer, Host, serving, settings
from tests.dictation import saying
from viva_server import create_app, mount_operator_page, mount_page, setup
from viva_server.web.pages import INDEX, PageName, add_page, page_files

PAGES: tuple[PageName, ...] = ("chat", "operator")
FILES = {page: page_files(page) for page in PAGES}
LOADED = {
    page: [name for name in files if not name.endswith(".txt")]
    for page, files in FILES.items()
}
OURS = {
    page: [name for name in names if not name.startswith("vendor/")]
    for page, names in LOADED.items()
}
TEXTS: dict[PageName, tuple[str, ...]] = {
    "chat": ("text.js",),
    "operator": ("operator/text.js", "operator/words.js"),
}
MAX_WEIGHT_BYTES = 60_000
POLICY = {
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
}
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}


every_page = pytest.mark.parametrize("page", PAGES)


def page_app(page: PageName = "chat") -> web.Application:
    app = web.Application()
    add_page(app, path="/", api_prefix="/api/v1", page=page)
    return app


def address(page: PageName, name: str) -> str:
    return "/" if name == INDEX[page] else f"/{name}"


async def get(host: Host, path: str, method: str = "GET", **headers: str) -> Answer:
    person = host.person("ana", prefix="")
    return await person.request(method, path, headers=headers, allow_redirects=False)


@every_page
async def test_every_file_comes_with_its_type_and_a_strict_policy(
    page: PageName,
) -> None:
    async with serving(page_app(page)) as host:
        for name, content in FILES[page].items():
            response = await get(host, address(page, name))
            assert response.status == 200, name
            if name != INDEX[page]:
                assert response.body == content
            kind = PurePosixPath(name).suffix
            assert response.headers["Content-Type"] == TYPES[kind]
            policy = response.headers["Content-Security-Policy"]
            assert set(policy.split("; ")) == POLICY
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Referrer-Policy"] == "no-referrer"
            assert response.headers["Cache-Control"] == "no-cache"


async def test_a_file_that_is_known_is_not_sent_again() -> None:
    async with serving(page_app()) as host:
        first = await get(host, "/app.js")
        tag = first.headers["ETag"]
        same = await get(host, "/app.js", **{"If-None-Match": tag})
        weak = await get(host, "/app.js", **{"If-None-Match": f'"x", W/{tag}'})
        other = await get(host, "/app.js", **{"If-None-Match": '"x"'})

    assert (same.status, same.body, same.headers["ETag"]) == (304, b"", tag)
    assert weak.status == 304
    assert other.status == 200


@pytest.mark.parametrize(
    "path",
    ["/index.html", "/__init__.py", "/vendor/", "/vendor/README.md", "/%2e%2e/app.py",
     "/operator/index.html"],
)  # fmt: skip
@every_page
async def test_nothing_else_is_served(page: PageName, path: str) -> None:
    async with serving(page_app(page)) as host:
        assert (await get(host, path)).status == 404


async def test_a_page_has_no_file_of_the_other() -> None:
    async with serving(page_app("operator")) as host:
        assert (await get(host, "/app.js")).status == 404
    async with serving(page_app("chat")) as host:
        assert (await get(host, "/operator/app.js")).status == 404


async def test_other_methods_are_refused() -> None:
    async with serving(page_app()) as host:
        head = await get(host, "/", "HEAD")
        post = await get(host, "/", "POST")

    assert (head.status, head.body) == (200, b"")
    assert (post.status, post.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")


@every_page
async def test_a_page_weighs_at_most_60_kb_on_its_way(page: PageName) -> None:
    weight = 0
    async with (
        serving(page_app(page)) as host,
        ClientSession(auto_decompress=False) as browser,
    ):
        for name in LOADED[page]:
            url = host.origin + address(page, name)
            async with browser.get(url) as response:
                weight += len(await response.read())
    assert weight <= MAX_WEIGHT_BYTES


async def test_who_takes_no_gzip_gets_none_and_each_coding_has_its_tag() -> None:
    async with serving(page_app()) as host:
        packed = await get(host, "/app.js")
        plain = await get(host, "/app.js", **{"Accept-Encoding": "identity"})
        tag = {"If-None-Match": packed.headers["ETag"]}
        known = await get(host, "/app.js", **tag)
        other = await get(host, "/app.js", **tag, **{"Accept-Encoding": "identity"})
    assert (packed.headers["Content-Encoding"], packed.body) == ("gzip", plain.body)
    assert "Content-Encoding" not in plain.headers
    assert (known.status, other.status) == (304, 200)
    for answer in (packed, plain, known):
        assert answer.headers["Vary"] == "Accept-Encoding"


@every_page
def test_no_file_names_another_host(page: PageName) -> None:
    for name in OURS[page]:
        text = FILES[page][name].decode()
        found = re.findall(r"https?://[\w.-]+|@import|url\(", text)
        assert set(found) <= {"http://www.w3.org"}, name  # SVG's namespace


@every_page
def test_there_is_no_inline_code_and_no_inline_style(page: PageName) -> None:
    text = FILES[page][INDEX[page]].decode()

    assert re.findall(r"<script(?![^>]* src=)|<style|\s(?:on\w+|style)=", text) == []


@every_page
def test_every_file_is_loaded_by_another_one(page: PageName) -> None:
    texts = {name: FILES[page][name].decode() for name in OURS[page]}
    for name in LOADED[page]:
        base = name.rpartition("/")[2]
        others = [text for other, text in texts.items() if other != name]
        assert name == INDEX[page] or any(base in text for text in others), name


@every_page
def test_both_languages_say_the_same_things(page: PageName) -> None:
    said = set()
    for name in TEXTS[page]:
        source = FILES[page][name].decode()
        portuguese, english = re.findall(r"= \{\n(.*?)\n\};", source, re.DOTALL)[:2]
        assert keys(portuguese) == keys(english)
        said |= set(keys(english))
    index = FILES[page][INDEX[page]].decode()
    assert set(re.findall(r'data-(?:text|label)="(\w+)"', index)) <= said


def keys(part: str) -> list[str]:
    """Give the names of the texts in a language."""
    return re.findall(r"^ +(\w+):", part, re.MULTILINE)


def test_each_library_is_named_with_its_version_and_has_its_licence() -> None:
    note = (resources.files("viva_server.web") / "vendor/README.md").read_text()
    rows = re.findall(r"\| `(\S+\.js)` \| `([\w-]+)` ([\d.]+), `\S+` \| (\w+)", note)

    assert {f"vendor/{row[0]}" for row in rows} == set(LOADED["chat"]) - set(
        OURS["chat"]
    )
    for file, package, version, licence in rows:
        assert version in FILES["chat"][f"vendor/{file}"][:300].decode()
        assert licence in FILES["chat"][f"vendor/LICENSE.{package}.txt"].decode()


@pytest.mark.parametrize(
    ("path", "prefix", "api"),
    [
        ("/", "/api/v1", "api/v1"),
        ("/chat", "/api/v1", "../api/v1"),
        ("/a/chat/", "/a/api", "../api"),
    ],
)
async def test_a_host_mounts_the_page_where_it_wants(
    database_url: str, path: str, prefix: str, api: str
) -> None:
    app = web.Application()
    config = settings(database_url)
    setup(app, config, respond=saying("oi"), authenticate=str, prefix=prefix)
    mount_page(app, path=path, api_prefix=prefix)
    folder = path.rstrip("/")

    async with serving(app) as host:
        page = await get(host, folder + "/")
        script = await get(host, folder + "/app.js")
        bare = await get(host, folder)

    assert f'name="viva-api" content="{api}"'.encode() in page.body
    assert script.status == 200
    if folder:
        name = folder.rpartition("/")[2]
        assert (bare.status, bare.headers["Location"]) == (308, f"{name}/")


async def test_the_page_lives_in_a_sub_application_too(database_url: str) -> None:
    sub = create_app(settings(database_url), respond=saying("oi"))
    mount_page(sub)
    app = web.Application()
    app.add_subapp("/assistant", sub)

    async with serving(app) as host:
        page = await get(host, "/assistant/")
        script = await get(host, "/assistant/app.js")
        api = await get(host, "/assistant/api/v1/health")

    assert b'content="api/v1"' in page.body
    assert (script.status, api.status) == (200, 200)


async def test_a_host_mounts_the_operators_page_beside_the_chat(
    database_url: str,
) -> None:
    app = web.Application()
    setup(app, settings(database_url), respond=saying("oi"), prefix="/a/api")
    mount_page(app, path="/a", api_prefix="/a/api")
    mount_operator_page(app, path="/a/operator", api_prefix="/a/api")

    async with serving(app) as host:
        page = await get(host, "/a/operator/")
        scripts = [
            await get(host, f"/a/operator/{name}")
            for name in ("operator/app.js", "api.js", "base.css", "icon.svg")
        ]
        bare = await get(host, "/a/operator")

    assert b'name="viva-api" content="../api"' in page.body
    assert {script.status for script in scripts} == {200}
    assert (bare.status, bare.headers["Location"]) == (308, "operator/")


@pytest.mark.parametrize("mount", [mount_page, mount_operator_page])
def test_a_path_without_a_slash_is_refused(mount: Callable[..., None]) -> None:
    with pytest.raises(ValueError, match="begin with a slash"):
        mount(web.Application(), path="chat")
