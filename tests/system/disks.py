"""Small file systems of their own for a test, where the machine lets it mount them."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["device_of", "give_back", "make_ext4", "mounted", "remount", "take_inodes", "take_space", "unmount"]

_BALLAST = "ballast"


def _run(*command: str) -> None:
    """Run what only the superuser may do; skip the test where it cannot be done."""
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip(f"{command[0]} is not installed")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine does not allow `{' '.join(command)}`: {error.stderr.strip()}")


@contextmanager
def mounted(place: Path, *arguments: str) -> Generator[Path]:
    """Mount what these arguments of mount(8) say on a directory, which is made; it may be unmounted meanwhile."""
    place.mkdir(exist_ok=True)
    _run("mount", *arguments, str(place))
    try:
        yield place
    finally:
        if _device_of(place) is not None:
            subprocess.run(["umount", "-l", str(place)], check=True)  # noqa: S607 - where it is differs


def unmount(place: Path) -> None:
    """Unmount a file system that nobody uses."""
    subprocess.run(["umount", str(place)], check=True, capture_output=True)  # noqa: S607 - where it is differs


def remount(place: Path, options: str) -> None:
    """Change the options of a file system that is mounted."""
    _run("mount", "-o", f"remount,{options}", str(place))


def make_ext4(image: Path, length: int) -> None:
    """Make a file that can be mounted as an ext4 of about so many bytes."""
    with image.open("wb") as file:
        file.truncate(length)
    _run("mkfs.ext4", "-q", str(image))


def device_of(place: Path) -> str:
    """Return the name of the device of a file system, as `/sys/fs` has it."""
    device = _device_of(place)
    assert device is not None
    return Path(device).name


def _device_of(place: Path) -> str | None:
    # Not Path.is_mount, which does not see that a directory is mounted on itself.
    for line in Path("/proc/self/mounts").read_text().splitlines():
        device, where, *_ = line.split()
        if where == str(place):
            return device
    return None


def take_space(disk: Path, left: int) -> None:
    """Leave so many blocks free."""
    status = os.statvfs(disk)
    fd = os.open(disk / _BALLAST, os.O_RDWR | os.O_CREAT)
    try:
        length = (status.f_bavail - left) * status.f_frsize
        if length > 0:
            os.posix_fallocate(fd, 0, length)
    finally:
        os.close(fd)


def take_inodes(disk: Path, left: int) -> None:
    """Leave room for so many files."""
    ballast = disk / _BALLAST
    ballast.mkdir()
    for number in range(os.statvfs(disk).f_favail - left):
        (ballast / str(number)).touch()


def give_back(disk: Path) -> None:
    """Undo `take_space` or `take_inodes`."""
    ballast = disk / _BALLAST
    if ballast.is_dir():
        shutil.rmtree(ballast)
    else:
        ballast.unlink()
