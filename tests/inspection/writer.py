"""A process that writes to a journal until its standard input ends, for those who look at it meanwhile.

It appends, syncs, fills sections, prunes and rewinds, in an order by chance from a seed. Each item names its position
and the history that it is of: a rewind begins another one.
"""

from __future__ import annotations

import asyncio
import random
import sys
from contextlib import suppress

from posjournal_async import BytesCodec, ItemPruned, Journal


async def write(path: str, seed: int) -> None:
    rng = random.Random(seed)
    history = 0
    loop = asyncio.get_running_loop()
    has_begun = False
    ended = loop.run_in_executor(None, sys.stdin.read)
    async with Journal.open(path, codec=BytesCodec(), items_per_section=7) as journal:
        while not ended.done():
            for _ in range(rng.randrange(1, 20)):
                await journal.append(b"%d of %d" % (journal.size(), history))
            match rng.randrange(6):
                case 0:
                    await journal.sync()
                case 1 | 2:
                    await journal.sync_data()
                case 3:
                    await journal.prune(max(journal.size() - rng.randrange(60), 0))
                case 4:
                    history += 1
                    with suppress(ItemPruned):
                        await journal.rewind(max(journal.size() - rng.randrange(40), 0))
                case _:
                    pass
            if journal.size() > 100 and not has_begun:
                has_begun = True
                sys.stdout.write("going\n")
                sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1], int(sys.argv[2])))
