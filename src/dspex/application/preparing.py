"""What is done once before a node answers, for all its processes: programs and datasets of the file, the first key."""

import sys

from dspex.access.records import DEFAULT_PROJECT, LOCAL, Author
from dspex.application.declaring import NotReady, check, declare
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


async def declare_file(foundation: Foundation, settings: Settings, origin: Origin) -> NotReady:
    """Its programs and datasets. Nothing is changed by a file whose programs are refused.

    Raises what `check`, `declare` and `declare_datasets` do.
    """
    programs = foundation.programs
    wanted = await check(programs, foundation.python_signatures, settings, DEFAULT_PROJECT, origin)
    # Before the programs: a version of a dataset more changes nobody's answers, should another dataset be refused.
    await declare_datasets(foundation, settings, origin.directory)
    return await declare(programs, wanted, DEFAULT_PROJECT, origin, foundation.audit)


async def prepare(foundation: Foundation, settings: Settings, origin: Origin) -> NotReady:
    """Raises what `declare_file` does, and Unavailable."""
    not_ready = await declare_file(foundation, settings, origin)
    if settings.asks_for_keys:
        await _make_first_key(foundation)
    return not_ready


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
