"""What a node refuses at the door, before it asks who is there: other hosts, other sites, forwarded requests.

Without keys, anything that runs on the machine may call it, and so may every web page that is open in a
browser there.
"""

from collections.abc import Iterable
from functools import lru_cache

from dspex.configuration.settings import Settings
from dspex.kit.addresses import LOOPBACK
from dspex.kit.errors import Forbidden

_OF_PROXIES = (b"x-forwarded-", b"forwarded", b"x-real-ip", b"via")


class Guard:
    def __init__(self, settings: Settings) -> None:
        server = settings.server
        only_local = server.host in LOOPBACK and not settings.asks_for_keys
        named = frozenset(name.lower() for name in server.allowed_hosts)
        # On another address nobody knows the names callers use, unless they are listed. Behind keys a name does
        # not matter: a page that was led here by a false one has no key.
        self._hosts = (LOOPBACK | named) if only_local else named
        self._origins = frozenset(origin.lower().rstrip("/").encode() for origin in server.cors_origins)
        self._forwarded = settings.asks_for_keys or settings.access.mode == "open"

    def refusal(self, headers: Iterable[tuple[bytes, bytes]]) -> Forbidden | None:
        """Why this request is not answered, or None."""
        host: bytes | None = None
        origin: bytes | None = None
        for name, value in headers:
            if name == b"host":
                if host is not None and host != value:
                    return Forbidden("The request names two hosts.", code="host_not_allowed")
                host = value
            elif name == b"origin":
                origin = value
            elif name.startswith(_OF_PROXIES) and not self._forwarded:
                return Forbidden(
                    f"The request came through a proxy ({name.decode('latin-1')}), and DSPex asks for no "
                    "keys here: whoever reaches the proxy would spend your model budget. Ask for keys with "
                    "access.mode required (DSPEX_ACCESS__MODE=required); or, if the proxy knows its callers, "
                    "say so with access.mode open.",
                    code="forwarded_not_allowed",
                )
        if self._hosts and (host is None or hostname(host) not in self._hosts):
            return Forbidden(
                f"Requests for the host {(host or b'').decode('latin-1')!r} are not answered; add the name "
                "to server.allowed_hosts if it is yours.",
                code="host_not_allowed",
            )
        if origin is not None and not self._allowed(origin.lower(), host):
            return Forbidden(
                f"Pages of {origin.decode('latin-1')!r} may not call this service; add it to "
                "server.cors_origins if they should.",
                code="origin_not_allowed",
            )
        return None

    def _allowed(self, origin: bytes, host: bytes | None) -> bool:
        if origin in self._origins or b"*" in self._origins:
            return True
        return host is not None and origin.partition(b"://")[2] == host.lower()


@lru_cache(maxsize=256)
def hostname(host: bytes) -> str:
    """The name in a Host header, without port, brackets and the root's dot, in lower case."""
    text = host.decode("latin-1").strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].rstrip(".")
