"""A JSON answer of a route."""

from typing import Any

from starlette.responses import Response

from dspex.kit import json


class Document(Response):
    """Times as UTC with a Z."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content)
