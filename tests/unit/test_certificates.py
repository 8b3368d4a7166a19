"""When the system's certificates are read, and that servers are held against them all the same."""

import os
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dspex.providers.certificates import read_when_needed

TLS = Path(__file__).parent.parent / "fixtures" / "tls"
# In a process of its own, since a library is imported once.
ASKING = f"""
import asyncio, json, ssl
read = []
really = ssl.SSLContext.set_default_verify_paths
ssl.SSLContext.set_default_verify_paths = lambda context: (read.append(context), really(context))[1]
from dspex.providers.language_models.http_client import OpenAIChatClient
assert not read, "importing aiohttp read certificates"
import uvloop
from dspex.configuration.models import ModelSettings
from dspex.gateway.errors import LMTransportError
from dspex.gateway.records import Dialect, LanguageModelRequest, Message, Options
from tests.contracts.scripted_server import ScriptedServer
from tests.contracts.test_language_model_client import OPENAI

async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain({str(TLS / "localhost.crt")!r}, {str(TLS / "localhost.key")!r})
    scripted = ScriptedServer()
    scripted.answers(OPENAI)
    listener = await asyncio.start_server(scripted.serve, "127.0.0.1", 0, ssl=context)
    port = listener.sockets[0].getsockname()[1]
    client = OpenAIChatClient(f"https://localhost:{{port}}/v1", None, ModelSettings(model="openai/x"))
    request = LanguageModelRequest(
        "x", (Message("user", "Where?"),), Options(), Dialect(model="gpt-4o-mini")
    )
    try:
        print((await client.complete(request)).text)
    except LMTransportError as error:
        print(error)
    await client.aclose()
    listener.close()
    assert len(read) == 1

uvloop.run(main())
"""


def ask(**environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", ASKING],
        env={**os.environ, "SSL_CERT_DIR": os.devnull, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_they_are_read_once_for_the_first_connection_and_let_whom_they_name_pass() -> None:
    assert "Paris" in ask(SSL_CERT_FILE=str(TLS / "localhost.crt"))


def test_who_is_not_among_them_is_not_talked_to() -> None:
    assert "certificate verify failed" in ask(SSL_CERT_FILE=os.devnull)


def test_meanwhile_other_threads_get_theirs_as_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "localhost.crt"))
    default, made = ssl.create_default_context, []

    def make() -> None:
        made.append(ssl.create_default_context())
        bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        bare.check_hostname = False
        bare.verify_mode = ssl.CERT_NONE
        bare.set_default_verify_paths()
        made.append(bare)

    with read_when_needed():
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        make()
    elsewhere, here = made[:2], made[2:]
    assert [one.cert_store_stats()["x509"] for one in elsewhere] == [1, 1]
    assert [one.cert_store_stats()["x509"] for one in here] == [0, 0]
    assert here[0].verify_mode is ssl.CERT_REQUIRED
    assert here[0].check_hostname
    assert ssl.create_default_context is default
    make()
    assert [one.cert_store_stats()["x509"] for one in made[4:]] == [1, 1]
