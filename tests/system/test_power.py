"""A real file system whose power is cut: what was acknowledged is on the device.

The file system is an ext4 in a file. It is shut down with an ioctl while a process uses a journal on it: what the
device does not have is lost with the page cache, names of files and their lengths included. Mounted again, it recovers
as after a power cut.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import pytest

from tests.effort import effort
from tests.system.disks import make_ext4, mounted, unmount
from tests.system.killer import Death, Killer
from tests.system.promised import Promised
from tests.system.test_kill import life_of, look_at, open_and_look

if TYPE_CHECKING:
    from pathlib import Path

IMAGE_BYTES = 32 * 1024 * 1024

# 10 and 1,000 cuts.
BLOCKS = effort(2, 25)
CUTS_IN_A_BLOCK = effort(5, 40)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_what_was_acknowledged_before_a_power_cut_is_there(block: int, tmp_path: Path) -> None:
    """Cut at any moment, again and again, also while a journal recovers: the history is as promised (D1 to D6, A1)."""
    chance = random.Random(block)
    items_per_section = chance.choice([1, 3, 8, 64])
    promised = Promised(items_per_section)
    image, disk = tmp_path / "image", tmp_path / "disk"
    make_ext4(image, IMAGE_BYTES)
    with Killer() as killer:
        for run in range(CUTS_IN_A_BLOCK):
            life = replace(life_of(chance, disk / "root", run, items_per_section), disk=str(disk))
            death = Death([], 0, was_in_time=False)
            try:
                with mounted(disk, "-o", "loop", str(image)):
                    death = killer.kill(life)
                    unmount(disk)
                assert (death.status, death.was_in_time) == (-signal.SIGKILL, True)
                promised.begin(run)
                for line in death.lines:
                    promised.hear(line)
                with mounted(disk, "-o", "loop", str(image)):
                    boundary, items = look_at(disk / "root")
                    promised.check(boundary, items)
                    if chance.random() < 0.5:
                        asyncio.run(open_and_look(disk / "root", items_per_section, boundary, items))
                    unmount(disk)
            except BaseException as error:
                error.add_note(f"block {block} (its seed), cut {run}; the file system is {image}")
                error.add_note(f"cut: {json.dumps(asdict(life))}")
                error.add_note("it said: " + ", ".join(death.lines[-200:]))
                raise
    assert promised.acknowledged
