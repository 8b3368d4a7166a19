"""What is done once before a node answers, for all its processes: programs and datasets of the file, the first key."""

import sys

from dspex.access.records import DEFAULT_PROJECT, LOCAL, Author
from dspex.application.declaring import declare
from dspex.application.foundation import Foundation
from dspex.application.origin import Origin
from dspex.application.seldom import declare_datasets
from dspex.configuration.settings import Settings

_FIRST_KEY = """\
This service asks for keys, and there was none, so here is an admin's. It is shown this once and stored nowhere:

    {key}

It may do everything in every project, so keep it like a password. Callers get keys of their own:

    dspex keys create NAME --role caller

Lost it? On this machine `dspex keys create NAME --role admin` makes another, `dspex keys revoke {id}` ends it.
"""


async def prepare(foundation: Foundation, settings: Settings, origin: Origin) -> None:
    """Raises what `declare` and `declare_datasets` do, and Unavailable."""
    await declare_datasets(foundation, settings, origin.directory)
    await declare(
        foundation.programs,
        foundation.python_signatures,
        settings,
        DEFAULT_PROJECT,
        origin,
        foundation.audit,
    )
    if settings.asks_for_keys:
        await _make_first_key(foundation)


async def _make_first_key(foundation: Foundation) -> None:
    """To standard output, never into a log."""
    if (await foundation.keys.list(None, limit=1, cursor=None)).data:
        return
    async with foundation.audit.operation(Author(DEFAULT_PROJECT, LOCAL), "key.bootstrap") as told:
        made = await foundation.keys.create_first()
        # Nothing when another node that started was faster.
        told["id"] = made and made[0].id
    if made is not None:
        key, text = made
        sys.stdout.write(_FIRST_KEY.format(key=text, id=key.id))
        sys.stdout.flush()
