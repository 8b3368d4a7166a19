"""Records executions as fast as it can, and prints the id of each one that was acknowledged.

python -m tests.faults.recording_process <database url> <durability>
"""

import asyncio
import sys

from dspex.configuration.settings import Settings, Storage
from dspex.storage.opening import open_database
from tests.making import execution


async def main(url: str, durability: str) -> None:
    settings = Settings(database_url=url, storage=Storage.model_validate({"durability": durability}))
    async with open_database(settings) as database:

        async def caller() -> None:
            while True:
                one = execution(outputs={"answer": "x" * 500})
                await database.recorder.record(one)
                print(one.id, flush=True)

        await asyncio.gather(*(caller() for _ in range(16)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
