"""A process that journals until it is killed and says which entries it was told are kept.

Arguments: the journal's folder, how many tasks write, and the number of its first entry.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from deployments.data.audit.journal import Journal
from tests.deployments.data.audit.acts import entry


async def main(folder: str, tasks: int, first: int) -> None:
    journal = Journal(Path(folder))
    await journal.open()
    numbers = iter(range(first, first + 1_000_000))

    async def write() -> None:
        for number in numbers:
            one = entry(number)
            await journal.append(one.body())
            sys.stdout.write(f"{one.id}\n")
            sys.stdout.flush()

    await asyncio.gather(*(write() for _ in range(tasks)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
