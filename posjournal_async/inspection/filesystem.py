"""What the system tells about the place of a journal: the file system that it is on, and the devices below that.

Nothing is tried and nothing is changed: `probes.py` does that.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Device",
    "FileSystemKind",
    "Mount",
    "device_of",
    "kind_of",
    "mount_of",
    "mounts_in",
]

_MOUNTINFO = Path("/proc/self/mountinfo")
_DEVICES = Path("/sys/dev/block")

# Layers of devices on devices, such as LVM on RAID on disks, that are followed.
_DEEPEST = 16


@dataclass(frozen=True, slots=True)
class Mount:
    """A file system as it is mounted, as proc_pid_mountinfo(5) describes it.

    Attributes:
        number: Device number, `major:minor`.
        point: Where it is mounted.
        kind: Type of the file system.
        source: What is mounted: a device, a remote place, or a word.
        options: Options of the mount and of the file system.
    """

    number: str
    point: str
    kind: str
    source: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Device:
    """A block device without others below it.

    Attributes:
        name: Its name in `/sys/block`.
        write_cache: "write back" or "write through" as the kernel has it, None where it does not tell.
        is_rotational: Whether the kernel takes it for a spinning disk.
        is_virtual: Whether a host stands between it and what it writes to.
        backing_file: The file that a loop device writes to, else None.
    """

    name: str
    write_cache: str | None
    is_rotational: bool
    is_virtual: bool
    backing_file: str | None


@dataclass(frozen=True, slots=True)
class FileSystemKind:
    """What is known about a type of file system.

    Attributes:
        state: "ok", "note" or "warning".
        text: What it means for a journal, in one sentence.
    """

    state: str
    text: str


def mounts_in(text: str) -> list[Mount]:
    """Return the mounts that the text of a mountinfo file lists, in its order; lines of another form are left out."""
    found: list[Mount] = []
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        mounted, made = before.split(" "), after.split(" ")
        if not separator or len(mounted) < 6 or len(made) < 3:
            continue
        options = (*mounted[5].split(","), *made[2].split(","))
        found.append(
            Mount(mounted[2], _unescaped(mounted[4]), made[0], _unescaped(made[1]), tuple(dict.fromkeys(options)))
        )
    return found


def _unescaped(field: str) -> str:
    """Return a field of mountinfo with its octal escapes (blank, tab, line feed, backslash) resolved."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def mount_of(path: Path, mounts: Sequence[Mount] | None = None) -> Mount | None:
    """Return the mount that a path is on, None where the system does not tell.

    Args:
        path: An existing path; links in it are followed.
        mounts: The mounts to choose from; those of this process where it is None.
    """
    if mounts is None:
        try:
            mounts = mounts_in(_MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape"))
        except OSError:
            return None
    place = path.resolve()
    found = None
    for mount in mounts:
        # A later mount at the same point lies over the earlier one.
        if place.is_relative_to(mount.point) and (found is None or len(mount.point) >= len(found.point)):
            found = mount
    return found


_IN_MEMORY = FileSystemKind("warning", "it keeps files in memory: nothing on it survives a restart of the machine")
_NETWORK = FileSystemKind(
    "warning", "it is a network file system, where no promise of the library holds: use a local one"
)
_JOURNALING = FileSystemKind("ok", "a local file system, whose fsync waits for the device")
_FRAGILE = FileSystemKind("note", "it keeps no journal of its own: a crash may damage the file system itself")
_KINDS = {
    **dict.fromkeys(("ext3", "ext4", "xfs", "btrfs", "f2fs", "bcachefs"), _JOURNALING),
    **dict.fromkeys(("ext2", "vfat", "exfat", "msdos"), _FRAGILE),
    **dict.fromkeys(("tmpfs", "ramfs", "devtmpfs"), _IN_MEMORY),
    "zfs": FileSystemKind("note", "its fsync returns at once where sync=disabled is set: `zfs get sync` tells"),
    "overlay": FileSystemKind(
        "note", "what is written goes to its upper layer, which in a container ends with it: use a volume"
    ),
    "virtiofs": FileSystemKind("warning", "the host decides what an fsync does: ask who runs it, or use a local disk"),
    "vboxsf": FileSystemKind("warning", "a shared folder of a host, whose fsync may do nothing: use a local disk"),
    "fuseblk": FileSystemKind("note", "a program serves it, and decides what an fsync does"),
    **dict.fromkeys(
        ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "glusterfs", "gfs2", "ocfs2", "beegfs"),
        _NETWORK,
    ),
}
_SERVED_REMOTELY = ("sshfs", "gluster", "s3fs", "gcsfuse", "rclone", "ceph", "davfs", "juicefs", "goofys", "hdfs")


def kind_of(kind: str) -> FileSystemKind:
    """Return what is known about a type of file system, as mountinfo names it."""
    if kind in _KINDS:
        return _KINDS[kind]
    family, _, program = kind.partition(".")
    if family in {"fuse", "fuseblk"}:
        if any(word in program for word in _SERVED_REMOTELY):
            return _NETWORK
        return FileSystemKind("warning", "a program serves it, and decides what an fsync does: use a local file system")
    return FileSystemKind("note", "nothing is known here about what its fsync does")


def device_of(mount: Mount, devices: Path = _DEVICES) -> list[Device]:
    """Return the devices at the bottom of what is mounted; none where there is none or the system does not tell."""
    number = mount.number
    if number.startswith("0:"):  # a file system on several devices, as btrfs, has no number of its own
        try:
            status = Path(mount.source).stat()
        except (OSError, ValueError):
            return []
        if not mount.source.startswith("/") or not stat.S_ISBLK(status.st_mode):
            return []
        number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    try:
        return _lowest((devices / number).resolve(strict=True), 0)
    except OSError:
        return []


def _lowest(device: Path, depth: int) -> list[Device]:
    if (device / "partition").exists():
        device = device.parent
    slaves = device / "slaves"
    below = sorted(slaves.iterdir()) if slaves.is_dir() else []
    if below and depth < _DEEPEST:
        found = [lowest for slave in below for lowest in _lowest(slave.resolve(strict=True), depth + 1)]
        return list(dict.fromkeys(found))
    return [
        Device(
            device.name,
            _line_in(device / "queue" / "write_cache"),
            _line_in(device / "queue" / "rotational") == "1",
            "virtio" in str(device) or "/vbd-" in str(device),
            _line_in(device / "loop" / "backing_file"),
        )
    ]


def _line_in(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
