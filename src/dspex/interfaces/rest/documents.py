"""A JSON answer of a route."""

from typing import Any

import orjson
from starlette.responses import Response


class Document(Response):
    """Written by orjson; times as UTC with a Z."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_UTC_Z)
