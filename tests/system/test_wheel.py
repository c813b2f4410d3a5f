"""The wheel that is published, installed where nothing else is: what it can do, and which extra it asks for by name."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 300

SERVICE = """
import asyncio
from posjournal_async import Journal

async def main():
    async with Journal.open("orders", compression=3) as journal:
        assert await journal.append({"order": 7, "note": "paid " * 100}) == 0
        await journal.sync()
    async with Journal.open("orders", compression=3) as journal:
        assert journal.recovery.clean
        print([(position, item["order"]) async for position, item in journal.replay(0)])

asyncio.run(main())
"""


@dataclass(frozen=True)
class Place:
    """A virtual environment, and a directory to work in that has no checkout in it."""

    environment: Path
    directory: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        command = [str(self.environment / "bin" / arguments[0]), *arguments[1:]]
        return subprocess.run(
            command, cwd=self.directory, env=clean, capture_output=True, text=True, check=False, timeout=SECONDS
        )

    def python(self, code: str) -> subprocess.CompletedProcess[str]:
        return self.run("python", "-c", code)


def pip(*arguments: str) -> None:
    """Let pip do something; who has no way to PyPI need not have it for the rest of the tests, but CI does."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    if done.returncode and "CI" not in os.environ:
        pytest.skip(f"pip {arguments[0]} needs PyPI: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(directory), str(ROOT))
    (built,) = directory.glob("*.whl")
    return built


def installed(what: str, directory: Path) -> Place:
    environment = directory / "environment"
    venv.create(environment, symlinks=True)
    pip("--python", str(environment / "bin" / "python"), "install", "--quiet", what)
    return Place(environment, directory)


@pytest.fixture(scope="module")
def place(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Where the wheel is installed with what it depends on, and no extra."""
    return installed(str(wheel), tmp_path_factory.mktemp("place"))


def test_the_wheel_is_the_library_and_nothing_else(wheel: Path) -> None:
    """Every file of it, the marker of its types and its license."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = ROOT / "posjournal_async"
    files = {str(path.relative_to(ROOT)) for path in package.rglob("*") if path.suffix in {".py", ".typed", ".json"}}
    assert "posjournal_async/py.typed" in files
    assert {name for name in names if ".dist-info/" not in name} == files
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_without_extras_a_service_has_all_it_needs(place: Place) -> None:
    """Files, msgpack, compression, recovery, metrics of its own: each module that no extra is for."""
    found = place.python(SERVICE)
    assert (found.stdout, found.stderr) == ("[(0, 7)]\n", "")
    found = place.python("import posjournal_async.inspection.verification, posjournal_async.metrics")
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("posjournal_async.adapters.opentelemetry", "opentelemetry"),
        ("posjournal_async.adapters.prometheus", "prometheus"),
        ("posjournal_async.codecs.msgspec", "msgspec"),
        ("posjournal_async.codecs.protobuf", "protobuf"),
        ("posjournal_async.codecs.pydantic", "pydantic"),
        ("posjournal_async.testing", "testing"),
        ("posjournal_async.testing.plugin", "testing"),
    ],
)
def test_a_module_names_the_extra_that_it_needs(place: Place, module: str, extra: str) -> None:
    """One sentence at the end of the traceback, with the command that brings it."""
    found = place.python(f"import {module}")
    assert found.returncode == 1
    last = found.stderr.strip().splitlines()[-1]
    assert f"needs the extra \"{extra}\": pip install 'posjournal_async[{extra}]'" in last, found.stderr


@pytest.mark.parametrize("command", [("posjournal",), ("python", "-m", "posjournal_async")], ids=["script", "module"])
def test_the_command_names_the_extra_that_it_needs(place: Place, command: tuple[str, ...]) -> None:
    """The sentence and nothing else: no traceback, and the exit code of a usage that is wrong."""
    found = place.run(*command, "info", "orders")
    assert found.stderr == "posjournal needs the extra \"cli\": pip install 'posjournal_async[cli]'\n"
    assert (found.returncode, found.stdout) == (2, "")


def test_with_the_extra_of_the_command_parquet_names_its_own(wheel: Path, tmp_path: Path) -> None:
    """Installed as its users install it, the command works, and says what one of its formats needs."""
    place = installed(f"{wheel}[cli]", tmp_path)
    assert place.python(SERVICE).returncode == 0
    found = place.run("posjournal", "cat", "orders")
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.startswith('0  {"order": 7, "note": "paid paid')
    found = place.run("posjournal", "export", "orders", "-o", "orders.parquet")
    assert found.returncode == 2
    assert "Parquet needs the extra \"arrow\": pip install 'posjournal_async[arrow]'" in found.stderr
    assert not (tmp_path / "orders.parquet").exists()
