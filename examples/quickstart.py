"""Open a journal, append, make durable, read, replay: the calls that most services need.

    python examples/quickstart.py [DIRECTORY]

Prints where the item went, what is there, and how large the journal is; a second run on the same directory goes on
where the first one ended.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from posjournal_async import Journal


async def main(directory: Path) -> None:
    """Write two orders, and show what the journal holds."""
    async with Journal.open(directory / "orders") as journal:
        position = await journal.append({"order": 7, "state": "paid"})
        await journal.append({"order": 7, "state": "sent"})
        await journal.sync_data()  # from here on both survive a crash

        print(f"position {position}: {await journal.read(position)}")
        async for place, order in journal.replay(0):
            print(f"replayed {place}: {order['state']}")
        print(f"size {journal.size()}, durable {journal.durable_size()}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(Path(sys.argv[1])))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            asyncio.run(main(Path(temporary)))
