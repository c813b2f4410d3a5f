"""`posjournal doctor`: what the system tells about the place of a journal."""

from __future__ import annotations

import json
import os
import pty
import resource
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from posjournal_async.inspection import surroundings
from posjournal_async.inspection.filesystem import Device, Mount, device_of, kind_of, mount_of, mounts_in
from posjournal_async.inspection.probes import measure_syncs, reads_at_once, try_lock
from posjournal_async.inspection.surroundings import NOTE, OK, WARNING, checks_of
from tests.cli.test_door import without_privileges
from tests.cli.transcripts import (
    CHECKOUT,
    STATES,
    locked,
    made_journal,
    made_states,
    posjournal_run,
    started,
    tree_hash,
)
from tests.system.disks import mounted

# As proc_pid_mountinfo(5) has them: what a laptop, a server, a container and a Raspberry Pi show.
MOUNTINFO = r"""
26 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw,errors=remount-ro
31 26 0:27 / /tmp rw,nosuid,nodev shared:12 - tmpfs tmpfs rw,size=1024k
40 26 253:0 / /var/lib rw,noatime - xfs /dev/mapper/vg-lib rw,nobarrier,inode64
41 40 0:44 / /var/lib/docker/merged rw - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w,volatile
42 26 0:50 / /home/a\040b rw - nfs4 server:/home rw,vers=4.2
43 26 0:51 / /home/a\040b/local rw - btrfs /dev/sdb1 rw,space_cache
44 26 8:17 / /home rw - ext3 /dev/sdb1 rw,data=writeback
45 26 8:18 / /home rw - ext4 /dev/sdb2 rw
46 26 0:60 / /mnt/ssh rw - fuse.sshfs me@host: rw
this line is of another form
"""


def found_by(name: str, checks: list[surroundings.Check]) -> list[surroundings.Check]:
    return [check for check in checks if check.name == name]


# The command.


def test_a_healthy_place_has_no_warning(tmp_path: Path) -> None:
    """Exit code 0, each line begins with its state, and what cannot be told is said."""
    made_journal(tmp_path, [1])
    result = posjournal_run("doctor", str(tmp_path / "orders"))
    if mount_kind(tmp_path) != "ext4":
        pytest.skip("the directory of the tests is on no file system that is known to be good")
    assert (result.exit_code, result.stderr) == (0, "")
    states = {line.split()[0] for line in result.stdout.splitlines()}
    assert states <= {OK, NOTE}
    assert "no program can prove that a device keeps what it says it keeps" in result.stdout.splitlines()[-1]
    names = [line[9:23].strip() for line in result.stdout.splitlines()]
    assert [name for name in names if name != "write cache"] == [
        "file system",
        "mount options",
        "fsync",
        "flock",
        "reads at once",
        "lock",
        "permissions",
        "space",
        "inodes",
        "open files",
        "file size",
        "versions",
        "device flushes",
    ]


def mount_kind(place: Path) -> str:
    mount = mount_of(place)
    return "" if mount is None else mount.kind


def test_json_says_the_same(tmp_path: Path) -> None:
    """One object a check; states and names are those of the text."""
    made_journal(tmp_path, [1])
    text = posjournal_run("doctor", str(tmp_path / "orders")).stdout.splitlines()
    told = json.loads(posjournal_run("doctor", str(tmp_path / "orders"), "--json").stdout)
    assert (told["schema"], told["measured"]) == ("posjournal.doctor/1", False)
    assert [f"{check['state']:<7}  {check['name']:<14}" for check in told["checks"]] == [line[:23] for line in text]


def test_without_measuring_nothing_changes(tmp_path: Path) -> None:
    """No byte, no time and no name, whatever the state of the journal, or where there is none."""
    with made_states(tmp_path):
        before = tree_hash(tmp_path)
        for state in STATES:
            assert posjournal_run("doctor", f"{state}/orders").exit_code in {0, 1}
        missing = posjournal_run("doctor", "not/yet/orders")
        assert tree_hash(tmp_path) == before
    assert "not there yet: the first Journal.open makes it" in missing.stdout


def test_measuring_leaves_nothing_behind(tmp_path: Path) -> None:
    """In a process of its own: how long an fsync takes, and that flock locks; the names are those of before."""
    made_journal(tmp_path, [1])
    before = sorted(tmp_path.rglob("*"))
    with started("doctor", str(tmp_path / "orders"), "--measure", "--json") as process:
        output, errors = process.communicate()
    assert errors == b""
    checks = {check["name"]: check for check in json.loads(output)["checks"]}
    assert " ms in the median, " in checks["fsync"]["found"]
    assert (checks["flock"]["state"], checks["flock"]["found"]) == (OK, "keeps a second one out")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_warning_is_a_finding(tmp_path: Path) -> None:
    """Exit code 1: here by the limits of the process, and by a library that makes fsync do nothing."""
    made_journal(tmp_path, [1])

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))

    # The dynamic linker says on standard error that there is no such library, and goes on.
    environment = {**os.environ, "LD_PRELOAD": "libeatmydata.so"}
    with started("doctor", str(tmp_path / "orders"), preexec_fn=limit, env=environment) as process:
        output, _ = process.communicate()
    assert process.returncode == 1
    warnings = [line for line in output.decode().splitlines() if line.startswith(WARNING)]
    assert [line[9:23].strip() for line in warnings if "file system" not in line] == [
        "fsync",
        "open files",
        "file size",
    ]
    assert "100 at once: raise it (ulimit -n)" in warnings[-2]
    assert "at most 1,048,576 bytes; the largest section has 73:" in warnings[-1]


def test_a_root_that_is_closed_to_this_user_is_a_warning(tmp_path: Path) -> None:
    """As that of somebody else's journal is: what is in it cannot be known, and that is no reason to say nothing."""
    root = tmp_path / "root"
    made_journal(root, [1])
    root.chmod(0)
    try:
        command = [*without_privileges(), sys.executable, "-m", "posjournal_async", "doctor", str(root / "orders")]
        found = subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=False, text=True)
    finally:
        root.chmod(0o700)
    assert (found.returncode, found.stderr) == (1, "")
    assert f"{root} is user " in found.stdout
    assert "not there yet" not in found.stdout


def test_a_file_system_in_memory_is_a_warning(tmp_path: Path) -> None:
    """With one that is mounted; and one that is almost full, with hardly a name left."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=1m,nr_inodes=50", "tmpfs") as disk:
        made_journal(disk, [1])
        checks = checks_of(disk, "orders", measures=True)
        [kind] = found_by("file system", checks)
        assert (kind.state, kind.found) == (WARNING, f"tmpfs on tmpfs, mounted at {disk}")
        assert "nothing on it survives" in kind.advice
        assert [check.state for name in ("space", "inodes") for check in found_by(name, checks)] == [WARNING, WARNING]
        [sync] = found_by("fsync", checks)
        assert (sync.state, "as expected of such a file system" in sync.advice) in {(WARNING, True), (OK, False)}


def test_a_file_system_that_is_read_only_is_a_warning(tmp_path: Path) -> None:
    """And can be looked at nevertheless."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "tmpfs") as disk:
        made_journal(disk, [1])
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)  # noqa: S607 - where it is differs
        result = posjournal_run("doctor", str(disk / "orders"))
        assert result.exit_code == 1
        assert "warning  mount options   ro: nothing can be written" in result.stdout
        refused = posjournal_run("doctor", str(disk / "orders"), "--measure")
        assert (refused.exit_code, refused.stdout) == (4, "")


# Who has it open.


def test_who_has_it_open_is_told(tmp_path: Path) -> None:
    """By its number, user and command, where it lives."""
    made_journal(tmp_path, [1])
    [free] = found_by("lock", checks_of(tmp_path, "orders", measures=False))
    assert (free.state, free.found) == (OK, "nobody is known to hold it")
    with locked(tmp_path):
        [held] = found_by("lock", checks_of(tmp_path, "orders", measures=False))
    assert held.state == NOTE
    assert held.found.startswith(f"held by process {os.getpid()} of user ")
    assert held.advice.startswith("it lives: ")


def test_a_lock_that_outlives_its_process_is_a_warning(tmp_path: Path) -> None:
    """As where a service has started another program without closing its files, and was killed."""
    made_journal(tmp_path, [1])
    script = """
        import fcntl, os, sys
        fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
        if os.fork() == 0:
            os.close(1)
            sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "orders_checkpoint")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b""  # both have closed it, or ended
        process.wait()
        [held] = found_by("lock", checks_of(tmp_path, "orders", measures=False))
        assert process.stdin is not None
        process.stdin.close()
    assert (held.state, held.found) == (WARNING, f"held by process {process.pid}")
    assert held.advice.startswith("that process is gone")


# What the system tells.


@pytest.mark.parametrize(
    ("place", "kind", "number"),
    [
        ("/", "ext4", "259:2"),
        ("/srv/data", "ext4", "259:2"),
        ("/tmp/x", "tmpfs", "0:27"),  # noqa: S108 - a name
        ("/tmpfs", "ext4", "259:2"),  # noqa: S108 - a name
        ("/var/lib/docker/merged/data", "overlay", "0:44"),
        ("/var/lib/docker", "xfs", "253:0"),
        ("/home/x", "ext4", "8:18"),
        ("/home/a b/c", "nfs4", "0:50"),
        ("/home/a b/local/c", "btrfs", "0:51"),
    ],
)
def test_the_mount_of_a_place_is_the_nearest_and_the_last(place: str, kind: str, number: str) -> None:
    """Also with blanks in its name, and where one mount lies over another."""
    mount = mount_of(Path(place), mounts_in(MOUNTINFO))
    assert mount is not None
    assert (mount.kind, mount.number) == (kind, number)


def test_there_is_a_mount_for_a_real_place(tmp_path: Path) -> None:
    """Its type is what statfs tells (stat(1))."""
    mount = mount_of(tmp_path)
    assert mount is not None
    told = subprocess.run(["stat", "-f", "-c", "%T", str(tmp_path)], check=True, capture_output=True, text=True)  # noqa: S607
    assert told.stdout.strip().split("/")[0] in {mount.kind, f"{mount.kind}fs", "ext2"}


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("ext4", OK),
        ("xfs", OK),
        ("btrfs", OK),
        ("zfs", NOTE),
        ("overlay", NOTE),
        ("vfat", NOTE),
        ("fuseblk", NOTE),
        ("tmpfs", WARNING),
        ("ramfs", WARNING),
        ("nfs", WARNING),
        ("nfs4", WARNING),
        ("cifs", WARNING),
        ("9p", WARNING),
        ("fuse.sshfs", WARNING),
        ("fuse.glusterfs", WARNING),
        ("fuse.mine", WARNING),
        ("virtiofs", WARNING),
        ("newfs", NOTE),
    ],
)
def test_what_is_known_of_a_type(kind: str, state: str) -> None:
    """Memory and networks are warnings; what is not known is not called good."""
    assert kind_of(kind).state == state


@pytest.mark.parametrize(
    ("place", "states"),
    [
        ("/", [(OK, "file system"), (OK, "mount options")]),
        ("/var/lib", [(OK, "file system"), (WARNING, "mount options")]),
        ("/var/lib/docker/merged", [(NOTE, "file system"), (WARNING, "mount options")]),
        ("/home/a b", [(WARNING, "file system"), (OK, "mount options")]),
    ],
)
def test_options_that_break_a_promise_are_warnings(place: str, states: list[tuple[str, str]]) -> None:
    """Such as a file system without barriers, and an overlay that skips every fsync."""
    mount = mount_of(Path(place), mounts_in(MOUNTINFO))
    assert [(check.state, check.name) for check in surroundings._checks_of_mount(mount)] == states


def mount(number: str, source: str = "/dev/x") -> Mount:
    return Mount(number, "/", "ext4", source, ("rw",))


def made_device(sys: Path, number: str, place: str, **files: str) -> Path:
    """Make a device as /sys has it."""
    device = sys / "devices" / place
    for name, content in files.items():
        file = device / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n")
    numbers = sys / "numbers"
    numbers.mkdir(exist_ok=True)
    (numbers / number).symlink_to(device)
    return device


def test_the_device_below_a_mount_is_found(tmp_path: Path) -> None:
    """Through partitions, and through what lies on several devices; each is named once."""
    numbers = tmp_path / "numbers"
    disk = made_device(tmp_path, "8:0", "pci/sda", queue__write_cache="write back", queue__rotational="1")
    made_device(tmp_path, "8:1", "pci/sda/sda1", partition="1")
    made_device(tmp_path, "259:0", "pci/nvme0n1", queue__write_cache="write through", queue__rotational="0")
    raid = made_device(tmp_path, "9:0", "virtual/md0", queue__write_cache="write back")
    (raid / "slaves").mkdir()
    (raid / "slaves" / "sda1").symlink_to(disk / "sda1")
    (raid / "slaves" / "sda").symlink_to(disk)
    (raid / "slaves" / "nvme0n1").symlink_to(tmp_path / "devices" / "pci" / "nvme0n1")
    made_device(tmp_path, "7:0", "virtual/loop0", loop__backing_file="/images/disk")
    made_device(tmp_path, "254:0", "pci/virtio1/vda", queue__write_cache="write back", queue__rotational="1")
    spinning = Device("sda", "write back", is_rotational=True, is_virtual=False, backing_file=None)
    flash = Device("nvme0n1", "write through", is_rotational=False, is_virtual=False, backing_file=None)
    assert device_of(mount("8:0"), numbers) == [spinning]
    assert device_of(mount("8:1"), numbers) == [spinning]
    assert device_of(mount("9:0"), numbers) == [flash, spinning]
    assert device_of(mount("7:0"), numbers)[0].backing_file == "/images/disk"
    assert device_of(mount("254:0"), numbers)[0].is_virtual
    assert device_of(mount("1:1"), numbers) == []
    assert device_of(mount("0:40", "tmpfs"), numbers) == []
    assert device_of(mount("0:40", str(tmp_path)), numbers) == []


@pytest.mark.parametrize(
    ("fields", "state", "words"),
    [
        ({"write_cache": "write back"}, OK, "write back (sda)"),
        ({"write_cache": "write back", "is_virtual": True}, NOTE, "up to the host"),
        ({"write_cache": "write through"}, NOTE, "sends no flushes"),
        ({"write_cache": None}, NOTE, "unknown (sda)"),
        ({"write_cache": "write back", "backing_file": "/images/disk"}, NOTE, "sda is the file /images/disk"),
    ],
)
def test_what_is_said_of_a_write_cache(fields: dict[str, Any], state: str, words: str) -> None:
    """It is right only where the device does what it is told, and no more is claimed."""
    device = Device(**{"name": "sda", "is_rotational": False, "is_virtual": False, "backing_file": None, **fields})
    [check] = surroundings._checks_of_devices(mount("8:0"), [device])
    assert check.state == state
    assert words in f"{check.found}: {check.advice}"


@pytest.mark.parametrize(
    ("median", "is_rotational", "state"),
    [(5e-6, False, WARNING), (29e-6, True, WARNING), (31e-6, False, OK), (0.9e-3, True, WARNING), (8e-3, True, OK)],
)
def test_an_fsync_that_is_too_fast_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, median: float, *, is_rotational: bool, state: str
) -> None:
    """Faster than any device, or than a disk can spin: something answers before it does."""
    monkeypatch.setattr(surroundings, "measure_syncs", lambda *_: [median] * 5)
    device = Device("sda", "write back", is_rotational=is_rotational, is_virtual=False, backing_file=None)
    [check] = surroundings._checks_of_fsync(tmp_path, mount("8:0"), [device], measures=True)
    assert check.state == state
    assert check.found.startswith(f"{median * 1e3:.3f} ms in the median")


# What trying tells.


def test_probes_leave_nothing_behind(tmp_path: Path) -> None:
    """And tell what they were asked."""
    assert len(measure_syncs(tmp_path, 0.0, 9)) == 1
    assert len(measure_syncs(tmp_path, 60.0, 9)) == 9
    assert try_lock(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_tells_whether_it_can_be_read_at_once(tmp_path: Path) -> None:
    """An empty one cannot; asking does not change when it was last read."""
    file = tmp_path / "file"
    file.write_bytes(b"")
    assert reads_at_once(file) is None
    file.write_bytes(b"x")
    os.utime(file, (1, 2))
    if mount_kind(tmp_path) == "ext4":
        assert reads_at_once(file)
    assert file.stat().st_atime == 1
    assert reads_at_once(tmp_path) is False  # a directory


def test_a_file_that_is_gone_or_closed_to_this_user_tells_nothing(tmp_path: Path) -> None:
    """A live writer may prune the oldest section just now; who may read what is for another check to say."""
    assert reads_at_once(tmp_path / "pruned") is None
    (tmp_path / "link").symlink_to(tmp_path / "file")  # refused whoever asks, as a mode refuses all but root
    (tmp_path / "file").write_bytes(b"x")
    assert reads_at_once(tmp_path / "link") is None


def test_measuring_shows_that_it_goes_on(tmp_path: Path) -> None:
    """It takes a second or more, and says so where standard error is a terminal."""
    ours, theirs = pty.openpty()
    try:
        with started("doctor", str(tmp_path / "orders"), "--measure", stderr=theirs) as process:
            process.communicate()
        assert b"measuring" in os.read(ours, 4096)
    finally:
        os.close(ours)
        os.close(theirs)
