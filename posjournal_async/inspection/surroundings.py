"""What a journal depends on outside of its files: the disk, the limits of the process, who has it open."""

from __future__ import annotations

import os
import platform
import pwd
import resource
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import crc32c

from posjournal_async.inspection.filesystem import device_of, kind_of, mount_of
from posjournal_async.inspection.probes import SYNCED_BYTES, measure_syncs, reads_at_once, try_lock
from posjournal_async.storage.directory import lock_holder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from posjournal_async.inspection.filesystem import Device, Mount

__all__ = ["NOTE", "OK", "WARNING", "Check", "checks_of"]

OK = "ok"
NOTE = "note"
WARNING = "warning"

# No device is known to make 4 KiB durable in less, the way there and a file system included.
_IMPLAUSIBLE_SECONDS = 30e-6

# A disk that spins at 7,200 turns a minute needs 8 ms for one.
_IMPLAUSIBLE_WHEN_ROTATING_SECONDS = 1e-3

# The file grows by 40 MB at the most, and takes no more than a quarter of what is free.
_MEASURED_SECONDS = 1.0
_MOST_SYNCS = 10_000
_SYNCED_SHARE = 4

_LITTLE_SPACE_BYTES = 100 * 2**20
_FEW_INODES = 1_000

# What a journal with default settings has open: 64 sealed sections, the tail, its index, the checkpoint, the lock; and
# as much again for the rest of a service.
_FEW_OPEN_FILES = 256

_RISKY_OPTIONS = {
    "nobarrier": "an fsync does not reach the device: remount with barriers",
    "barrier=0": "an fsync does not reach the device: remount with barriers",
    "barrier=none": "an fsync does not reach the device: remount with barriers",
    "volatile": "an overlay that is mounted so skips every fsync: mount it without",
    "fsync_mode=nobarrier": "an fsync does not reach the device: remount with fsync_mode=posix",
}
_REMARKABLE_OPTIONS = {
    "data=writeback": "after a crash a file may hold old bytes of the device at its end: the checksums tell them apart",
    "sync": "every write waits for the device, also where nobody asked for it: appends are slow",
    "dirsync": "every new section waits for the device twice: rolling is slow",
}

_LIBRARIES = ("posjournal_async", "aiofiles", "anyio", "crc32c", "msgpack")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What, in a word or two that stay the same from version to version.
        state: "ok", "note" or "warning".
        found: What was found.
        advice: What it means, or what to do about it, in one sentence; "" for nothing.
    """

    name: str
    state: str
    found: str
    advice: str = ""


def checks_of(root: Path, partition: str, *, measures: bool) -> list[Check]:
    """Return what can be told about the place of a journal, which need not exist yet.

    Args:
        root: Root of its storage.
        partition: Its base name.
        measures: Whether to write: a file and a directory of their own in the root, of which nothing is left. Else
            nothing is changed.

    Raises:
        OSError: With `measures`: the root cannot be written to.
    """
    place = next(above for above in (root.absolute(), *root.absolute().parents) if _is_directory(above))
    mount = mount_of(place)
    devices = [] if mount is None else device_of(mount)
    return [
        *_checks_of_mount(mount),
        *_checks_of_devices(mount, devices),
        *_checks_of_fsync(place, mount, devices, measures=measures),
        *_checks_of_locks(place, measures=measures),
        _check_of_reads(root, partition),
        _check_of_holder(root, partition),
        *_checks_of_access(root, partition, place),
        *_checks_of_space(place),
        *_checks_of_limits(root, partition),
        _check_of_versions(),
        Check(
            "device flushes",
            NOTE,
            "cannot be told",
            "no program can prove that a device keeps what it says it keeps: only cutting its power can show that it "
            "does not",
        ),
    ]


def _is_directory(path: Path) -> bool:
    """Say whether this is a directory, as far as this user may know."""
    try:
        return path.is_dir()
    except PermissionError:
        return False


def _checks_of_mount(mount: Mount | None) -> Iterator[Check]:
    if mount is None:
        yield Check("file system", NOTE, "unknown", "this system does not tell: make sure that it is a local one")
        return
    kind = kind_of(mount.kind)
    yield Check("file system", kind.state, f"{mount.kind} on {mount.source}, mounted at {mount.point}", kind.text)
    if "ro" in mount.options:
        yield Check("mount options", WARNING, "ro", "nothing can be written: the commands that look still work")
    for options, state in ((_RISKY_OPTIONS, WARNING), (_REMARKABLE_OPTIONS, NOTE)):
        for option in mount.options:
            if option in options:
                yield Check("mount options", state, option, options[option])
    if not {"ro", *_RISKY_OPTIONS, *_REMARKABLE_OPTIONS}.intersection(mount.options):
        yield Check("mount options", OK, ",".join(mount.options))


def _checks_of_devices(mount: Mount | None, devices: list[Device]) -> Iterator[Check]:
    if not devices:
        if mount is not None and mount.source.startswith("/"):
            yield Check("write cache", NOTE, "unknown", "the system does not tell about the device of this file system")
        return
    for device in devices:
        if device.backing_file is not None:
            yield Check(
                "write cache",
                NOTE,
                f"{device.name} is the file {device.backing_file}",
                "an fsync goes as far as the file system of that file takes it: look at that one too",
            )
        elif device.write_cache == "write back":
            host = " on the host" if device.is_virtual else ""
            yield Check(
                "write cache",
                NOTE if device.is_virtual else OK,
                f"write back ({device.name})",
                f"the kernel flushes the cache of the device at each fsync; what happens{host} then is up to the "
                f"{'host' if device.is_virtual else 'device'}",
            )
        elif device.write_cache == "write through":
            yield Check(
                "write cache",
                NOTE,
                f"write through ({device.name})",
                "the kernel sends no flushes: right where the device has no volatile cache, or a battery for it",
            )
        else:
            yield Check("write cache", NOTE, f"unknown ({device.name})", "the system does not tell")


def _checks_of_fsync(place: Path, mount: Mount | None, devices: list[Device], *, measures: bool) -> Iterator[Check]:
    preload = os.environ.get("LD_PRELOAD", "")
    if "eatmydata" in preload:
        yield Check("fsync", WARNING, f"LD_PRELOAD={preload}", "libeatmydata makes every fsync do nothing: unset it")
    if not measures:
        yield Check(
            "fsync", NOTE, "not measured", "--measure appends 4 KiB and syncs it for a second, in a file of its own"
        )
        return
    status = os.statvfs(place)
    most = min(_MOST_SYNCS, status.f_bavail * status.f_frsize // _SYNCED_SHARE // SYNCED_BYTES)
    if not most:
        yield Check("fsync", NOTE, "not measured", "there is no room to write to")
        return
    taken = sorted(measure_syncs(place, _MEASURED_SECONDS, most))
    median, p99 = taken[len(taken) // 2], taken[min(len(taken) * 99 // 100, len(taken) - 1)]
    found = f"{median * 1e3:.3f} ms in the median, {p99 * 1e3:.3f} ms at 99 % ({len(taken):,} times 4 KiB)"
    in_memory = mount is not None and kind_of(mount.kind).state == WARNING
    is_spinning = any(device.is_rotational and not device.is_virtual for device in devices)
    if median < _IMPLAUSIBLE_SECONDS:
        why = "as expected of such a file system" if in_memory else "something answers before the device does"
        yield Check("fsync", WARNING, found, f"faster than any device: {why}")
    elif is_spinning and median < _IMPLAUSIBLE_WHEN_ROTATING_SECONDS:
        yield Check(
            "fsync", WARNING, found, "faster than a spinning disk: something answers before it does, maybe by a battery"
        )
    else:
        yield Check("fsync", OK, found, "each commit takes about that long, and tasks share it")


def _checks_of_locks(place: Path, *, measures: bool) -> Iterator[Check]:
    if not measures:
        yield Check("flock", NOTE, "not tried", "--measure tries it on a directory of its own")
        return
    if try_lock(place):
        yield Check("flock", OK, "keeps a second one out")
    else:
        yield Check("flock", WARNING, "lets two in", "two processes could write to a journal here: use another place")


def _check_of_reads(root: Path, partition: str) -> Check:
    name = "reads at once"
    data = root / f"{partition}_data"
    for file in sorted(data.glob("*")) if _is_directory(data) else []:
        works = reads_at_once(file)
        if works:
            return Check(name, OK, "RWF_NOWAIT works", "a read that the page cache can answer stays on the event loop")
        if works is not None:
            return Check(name, NOTE, "RWF_NOWAIT does not work", "every read of a file takes a hop to a thread")
    return Check(name, NOTE, "not tried", "there is no file of the journal to try it on")


def _check_of_holder(root: Path, partition: str) -> Check:
    holder = lock_holder(root, f"{partition}_checkpoint")
    if holder is None:
        if not Path("/proc/locks").exists():
            return Check("lock", NOTE, "unknown", "this system does not tell who holds it")
        return Check("lock", OK, "nobody is known to hold it")
    try:
        owner = Path(f"/proc/{holder}").stat().st_uid
        words = Path(f"/proc/{holder}/cmdline").read_bytes().split(b"\0")
    except OSError:
        advice = "that process is gone, and one that it started holds the lock on: `fuser` on the directory names it"
        return Check("lock", WARNING, f"held by process {holder}", advice)
    command = " ".join(word.decode(errors="replace") for word in words if word)
    found = f"held by process {holder} of {_user(owner)}" + (f": {command[:60]}" if command else "")
    if owner != os.geteuid():
        return Check("lock", NOTE, found, "it lives, and is another user's: the commands that change have to wait")
    return Check("lock", NOTE, found, "it lives: the commands that change have to wait, those that look do not")


def _user(number: int) -> str:
    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"


def _checks_of_access(root: Path, partition: str, place: Path) -> Iterator[Check]:
    parts = [root / f"{partition}_{part}" for part in ("data", "offsets", "checkpoint")]
    there = [part for part in parts if _is_directory(part)]
    if not there and os.access(place, os.X_OK):
        yield Check("journal", NOTE, "not there yet", "the first Journal.open makes it")
    closed = [
        path for path in (*there, *([] if there else [place])) if not os.access(path, os.R_OK | os.W_OK | os.X_OK)
    ]
    for path in closed:
        owner = path.stat().st_uid
        advice = "this user cannot write there: run as the one whose service it is"
        yield Check("permissions", WARNING, f"{path} is {_user(owner)}'s", advice)
    strangers = {part.stat().st_uid for part in there}
    if len(strangers) > 1:
        users = ", ".join(sorted(map(_user, strangers)))
        yield Check("permissions", WARNING, f"its directories belong to {users}", "give all of them to one user")
    elif not closed:
        yield Check("permissions", OK, "this user can read and write")


def _checks_of_space(place: Path) -> Iterator[Check]:
    status = os.statvfs(place)
    free, size = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    found = f"{free / 2**30:,.1f} GiB of {size / 2**30:,.1f} GiB free"
    if free < _LITTLE_SPACE_BYTES:
        advice = "prune now, or make room: a full disk fails the journal; nothing durable is lost, opening needs room"
        yield Check("space", WARNING, found, advice)
    else:
        yield Check("space", OK, found)
    if status.f_files:  # some file systems have no fixed number
        found = f"{status.f_favail:,} more files can be made"
        if status.f_favail < _FEW_INODES:
            yield Check("inodes", WARNING, found, "each section takes two: remove files, or use larger sections")
        else:
            yield Check("inodes", OK, found)


def _checks_of_limits(root: Path, partition: str) -> Iterator[Check]:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = "no limit" if files == resource.RLIM_INFINITY else f"{files:,} at once"
    if files != resource.RLIM_INFINITY and files < _FEW_OPEN_FILES:
        advice = "raise it (ulimit -n), or lower Config.max_open_blobs; this is the limit here, a service has its own"
        yield Check("open files", WARNING, found, advice)
    else:
        yield Check("open files", OK, found)
    length, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if length == resource.RLIM_INFINITY:
        yield Check("file size", OK, "no limit")
        return
    largest = 0
    with suppress(OSError):
        largest = max((file.stat().st_size for file in (root / f"{partition}_data").iterdir()), default=0)
    found = f"at most {length:,} bytes; the largest section has {largest:,}"
    yield Check("file size", WARNING, found, "a write beyond it makes the journal fail: raise it (ulimit -f)")


def _check_of_versions() -> Check:
    found = [f"Python {platform.python_version()}", f"{platform.system()} {platform.release()}"]
    for library in _LIBRARIES:
        try:
            found.append(f"{library} {version(library)}")
        except PackageNotFoundError:  # run from its source
            found.append(f"{library} of no known version")
    is_fast = bool(getattr(crc32c, "hardware_based", False))
    advice = "" if is_fast else "this processor has no instruction for CRC-32C: checksums are slower"
    return Check("versions", OK if is_fast else NOTE, ", ".join(found), advice)
