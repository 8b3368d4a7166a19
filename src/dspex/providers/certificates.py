"""The system's certificates, read for the first connection that needs them and not to import a library."""

import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any


class _Default(ssl.SSLContext):
    """Stands for `ssl.create_default_context()`, which is asked when something is to be connected."""

    _made: ssl.SSLContext | None = None
    _protocols: Iterable[str] = ()

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        self._protocols = alpn_protocols

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        return self._context().wrap_bio(*arguments, **options)

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        return self._context().wrap_socket(*arguments, **options)

    def _context(self) -> ssl.SSLContext:
        if self._made is None:
            made = ssl.create_default_context()
            made.set_alpn_protocols(self._protocols)
            self._made = made
        return self._made


@contextmanager
def read_when_needed() -> Iterator[None]:
    """For the import of a library that makes its contexts there and then.

    aiohttp reads the certificates twice, which takes 30 ms, a tenth of a start: once to verify servers, which waits
    for the first connection to one, and once for a context that verifies nobody, which has no use for them. Other
    threads see nothing of it.
    """
    here = get_ident()
    default, read = ssl.create_default_context, ssl.SSLContext.set_default_verify_paths

    def later(*arguments: Any, **options: Any) -> ssl.SSLContext:
        if arguments or options or get_ident() != here:
            return default(*arguments, **options)
        return _Default(ssl.PROTOCOL_TLS_CLIENT)

    def unless_useless(context: ssl.SSLContext) -> None:
        if context.verify_mode != ssl.CERT_NONE or get_ident() != here:
            read(context)

    ssl.create_default_context = later
    ssl.SSLContext.set_default_verify_paths = unless_useless  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        ssl.create_default_context = default
        ssl.SSLContext.set_default_verify_paths = read  # type: ignore[method-assign]
