"""Commands that ask a running node, over HTTP."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Annotated, Any, BinaryIO
from urllib import request as http
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit

import typer
from msgspec import Struct

from dspex.access.records import DEFAULT_PROJECT
from dspex.access.rules import check_project
from dspex.interfaces.cli.ports import Application
from dspex.kit import json
from dspex.kit.errors import Invalid, Unauthenticated, Unavailable, of_kind

UrlOption = Annotated[
    str | None,
    typer.Option("--url", help="A running node [DSPEX_URL, or where the configuration has it listen]."),
]
NodeOption = Annotated[
    str | None,
    typer.Option("--url", help="Of a running node [DSPEX_URL; without it, of the configuration's database]."),
]
RunOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="A running node to do it [DSPEX_URL; without it this command does, or a worker on the database here].",
    ),
]
ActingOption = Annotated[
    str | None, typer.Option("--project", help="The project to act in, with an admin's key [the key's own].")
]
DEFAULT_URL = "http://127.0.0.1:8000"
WITHIN_S = 30.0
# For what compiles a program or reads a whole file before it answers.
LONG_S = 600.0
CHUNK = 65_536
PAGE = 200
JSON_LINES = "application/x-ndjson"


_UNAUTHENTICATED = 401
_ANYWHERE = ("0.0.0.0", "::")  # noqa: S104


class Remote(Struct, frozen=True):
    """A running node. `project` is the one to act in, where the key may; None: the key's own."""

    url: str
    project: str | None = None

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return request(method, path, body, url=self.url, project=self.project)

    def get(self, path: str, **query: object) -> dict[str, Any]:
        """Times in it are datetimes. A part of the query that is None is left out. Raises as `request` does."""
        return _with_times(self.request("GET", path + query_of(query)))

    def post(self, path: str, body: Mapping[str, Any], *, within_s: float = WITHIN_S) -> dict[str, Any]:
        """As `get`."""
        document = request("POST", path, body, url=self.url, project=self.project, within_s=within_s)
        return _with_times(document)

    def delete(self, path: str, **query: object) -> dict[str, Any]:
        """As `get`."""
        return _with_times(self.request("DELETE", path + query_of(query)))

    def listed(self, path: str, limit: int | None = None, **query: object) -> list[dict[str, Any]]:
        """The first `limit` entries of a list, page by page; None: all. Otherwise as `get`."""
        found: list[dict[str, Any]] = []
        cursor = None
        while limit is None or len(found) < limit:
            size = PAGE if limit is None else min(PAGE, limit - len(found))
            page = self.request("GET", path + query_of({**query, "limit": size, "cursor": cursor}))
            found += map(_with_times, page["data"])
            cursor = page["next_cursor"]
            if cursor is None:
                break
        return found

    def upload(self, path: str, content: bytes | BinaryIO, media_type: str = JSON_LINES) -> tuple[int, Any]:
        """The answer's status and document. Raises as `request` does."""
        headers = {"content-type": media_type}
        asked = _asked(self.url, path, "POST", content, self.project, headers)
        with _opened(asked, self.url, LONG_S) as answer:
            return answer.status, json.loads(answer.read())

    def download(self, path: str) -> Iterator[bytes]:
        """What the node answers, as it comes. Raises as `request` does."""
        with _opened(_asked(self.url, path, "GET", None, self.project), self.url) as answer:
            while chunk := answer.read(CHUNK):
                yield chunk


def segment(name: object) -> str:
    """A name as a part of a path."""
    return quote(str(name), safe="")


def query_of(given: Mapping[str, object]) -> str:
    """From the question mark on; what is None is left out."""
    said = {name: _query_text(value) for name, value in given.items() if value is not None}
    return f"?{urlencode(said)}" if said else ""


def _query_text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return json.dumps(value).decode() if isinstance(value, bool) else str(value)


def _with_times(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _time(value) if _names_a_time(name) else value for name, value in document.items()}


def _names_a_time(name: str) -> bool:
    return name in ("at", "since") or name.endswith(("_at", "_until"))


def _time(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return value


def named_node(url: str | None, project: str | None) -> Remote | None:
    """The node of --url or DSPEX_URL; None without, where a command works on the configuration's database."""
    if project is not None:
        check_project(project)
    address = url or os.environ.get("DSPEX_URL")
    if address is None:
        return None
    return Remote(address, None if project == DEFAULT_PROJECT else project)


def remote(
    application: Application, config: Path | None, url: str | None, project: str | None = None
) -> Remote:
    """The node at `url`, or DSPEX_URL, or where the configuration has it listen."""
    given = url or os.environ.get("DSPEX_URL")
    if given is None:
        server = application.load_settings(config, {})[0].server
        host = "127.0.0.1" if server.host in _ANYWHERE else server.host
        given = f"http://{f'[{host}]' if ':' in host else host}:{server.port}"
    return Remote(given, project)


def request(
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    url: str | None = None,
    project: str | None = None,
    within_s: float = WITHIN_S,
) -> dict[str, Any]:
    """The node's answer. Raises the error that the node answers with, or Unavailable (code node_unreachable).

    The key is that of DSPEX_API_KEY, if it is set.
    """
    base = (url or os.environ.get("DSPEX_URL") or DEFAULT_URL).rstrip("/")
    asked = _asked(base, path, method, None if body is None else json.dumps(body), project)
    with _opened(asked, base, within_s) as answer:
        document: dict[str, Any] = json.loads(answer.read())
        return document


def _asked(
    base: str,
    path: str,
    method: str,
    body: bytes | BinaryIO | None,
    project: str | None,
    more: Mapping[str, str] | None = None,
) -> http.Request:
    if urlsplit(base).scheme not in ("http", "https"):
        raise Invalid(f"{base!r} is not the http or https address of a node.", code="bad_argument")
    headers = {"content-type": "application/json", "accept": "application/json", **(more or {})}
    if key := os.environ.get("DSPEX_API_KEY"):
        headers["authorization"] = f"Bearer {key}"
    if project is not None:
        headers["x-dspex-project"] = project
    return http.Request(base.rstrip("/") + path, body, headers, method=method)  # noqa: S310 - checked above


class _StayHere(http.HTTPRedirectHandler):
    """A node redirects nobody, and the key is for nobody else."""

    def redirect_request(self, *_: object) -> None:
        return None


@contextmanager
def _opened(asked: http.Request, base: str, within_s: float = WITHIN_S) -> Iterator[HTTPResponse]:
    try:
        with http.build_opener(_StayHere).open(asked, timeout=within_s) as answer:
            yield answer
    except HTTPError as refusal:
        if refusal.code == _UNAUTHENTICATED and not asked.has_header("Authorization"):
            raise _keyless(base) from None
        raise _refused(refusal.read(), refusal.code) from None
    except (URLError, HTTPException, OSError, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise Unavailable(
            f"No DSPex node answers at {base} ({reason}); start one with `dspex serve`, or say where it is with "
            "--url or DSPEX_URL.",
            code="node_unreachable",
        ) from None


def _keyless(base: str) -> Unauthenticated:
    return Unauthenticated(
        f"The node at {base} asks for a key: set DSPEX_API_KEY to one. `dspex keys create NAME` makes one, where the "
        "node's database is."
    )


def _refused(body: bytes, status: int) -> Exception:
    try:
        problem = json.loads(body)
        return of_kind(problem["kind"], problem["detail"], code=problem["code"])
    except (ValueError, KeyError, TypeError):
        return Unavailable(
            f"What answers there is no DSPex node: HTTP {status} without a problem document.",
            code="node_unreachable",
        )
