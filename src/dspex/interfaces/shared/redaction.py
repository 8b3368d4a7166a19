"""Settings as they may be shown: what could be a secret is masked."""

import re
from collections.abc import Mapping
from typing import Any

from dspex.kit.addresses import MASK, without_path, without_secrets

_SECRET = re.compile(
    r"(?i)(^|[_\-.])(api_?key|key|token|secret|password|passwd|authorization|credentials?)($|[_\-.])"
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_HEADERS = re.compile(r"(?i)(^|[_\-.])headers?$")
_WEBHOOK = re.compile(r"(?i)(^|[_\-.])webhooks?$")
_URL = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.\-]*://")


def redacted(value: Any, name: str = "") -> Any:
    """The same document with MASK for members named like a secret, whatever is sent as headers, and in URLs

    for passwords and queries, in those of webhooks for paths as well.
    """
    if isinstance(value, Mapping):
        if _HEADERS.search(_CAMEL.sub("_", name)):
            return dict.fromkeys(value, MASK)
        if _WEBHOOK.search(_CAMEL.sub("_", name)):
            return {key: _of_webhook(one, str(key)) for key, one in value.items()}
        return {key: redacted(one, str(key)) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(one, name) for one in value]
    if isinstance(value, str) and value and _SECRET.search(_CAMEL.sub("_", name)):
        return MASK
    if isinstance(value, str) and _URL.match(value):
        return without_secrets(value)
    return value


def _of_webhook(value: Any, name: str) -> Any:
    return without_path(value) if isinstance(value, str) and _URL.match(value) else redacted(value, name)
