"""The door of the repository says what it does, and what it does not know."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import pythons

DOOR = Path(__file__).parents[1] / "run.py"


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`run.py` as a module that has its `.venv` elsewhere."""
    spec = importlib.util.spec_from_file_location("door", DOOR)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "PYTHON", tmp_path / ".venv" / "bin" / "python")
    return module


def test_without_a_command_it_prints_the_usage() -> None:
    """All commands are listed, and nothing is installed for that."""
    done = subprocess.run([sys.executable, str(DOOR)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0
    assert all(f"run.py {command}" in done.stdout for command in ("demo", "test", "check", "docs", "bench", "pythons"))


def test_an_unknown_command_is_refused() -> None:
    """The sentence names it, and the exit code is that of a wrong command line."""
    done = subprocess.run([sys.executable, str(DOOR), "tset"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.endswith("run.py: there is no command 'tset'\n")


@pytest.mark.parametrize("command", ["check", "docs"])
def test_a_command_without_arguments_refuses_them(command: str) -> None:
    """Before anything is installed."""
    done = subprocess.run(
        [sys.executable, str(DOOR), command, "x"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr == f"run.py: {command} takes no arguments, and was given x\n"


def test_a_python_without_ensurepip_says_what_to_install(door: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian keeps ensurepip in a package of its own."""
    monkeypatch.setattr(door.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(door.Trouble, match=r"apt install python3\.\d+-venv"):
        door.prepare(())


def test_an_installation_that_fails_is_tried_again(door: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed leaves no stamp; what succeeded leaves one, and is not repeated."""
    installed: list[str] = []
    codes = [0, 0, 1]

    def install(*arguments: str, **_: object) -> int:
        installed.append(arguments[-1].rpartition(":")[2])
        return codes.pop(0)

    def make() -> None:
        door.PYTHON.parent.mkdir(parents=True)
        door.PYTHON.touch()

    monkeypatch.setattr(door, "is_usable", door.PYTHON.exists)
    monkeypatch.setattr(door, "make", make)
    monkeypatch.setattr(door, "run", install)
    with pytest.raises(door.Trouble, match=r"pip install --group .* failed"):
        door.prepare(("test",))
    assert installed == ["pip>=25.1", str(door.ROOT), "test"]

    codes, installed[:] = [0, 0, 0], []
    door.prepare(("test",))
    assert installed == ["pip>=25.1", str(door.ROOT), "test"]

    codes, installed[:] = [0, 0], []
    door.prepare(("test", "lint"))
    assert installed == ["pip>=25.1", "lint"]
    door.prepare(("test", "lint"))
    door.prepare(())
    assert installed == ["pip>=25.1", "lint"]


def test_a_peer_that_cannot_be_installed_is_left_out(
    door: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The benchmarks go on without durastream, and say why; the next run tries again, until it is there."""
    door.VENV.mkdir()
    codes = [1, 0]
    monkeypatch.setattr(door, "run", lambda *_, **__: codes.pop(0))
    door.prepare_durastream()
    assert "durastream is left out: `pip install" in capsys.readouterr().err
    door.prepare_durastream()
    door.prepare_durastream()
    assert codes == []
    assert capsys.readouterr().err == ""


def test_the_part_for_other_pythons_is_there_and_an_unknown_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """What is named in it exists, and a Python that was not found is no Python that passed."""
    assert [path for path in (*pythons.PART, *pythons.ASYNCIO_ONLY) if not (pythons.ROOT / path).exists()] == []
    assert pythons.main(["3.99"]) == 2
    assert capsys.readouterr().err.startswith("not found: 3.99; there are uvloop")


def test_the_newest_python_is_the_last_that_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """By version and not by letter; without another Python it is this one, on uvloop, and not once more."""
    tried: list[str] = []

    def passes(name: str, _: Path) -> bool:
        tried.append(name)
        return True

    monkeypatch.setattr(pythons, "passes", passes)
    for found in ({"3.9": Path("nine"), "3.13": Path("thirteen")}, {}):
        monkeypatch.setattr(pythons, "pythons", found.copy)
        assert pythons.main(["uvloop", "newest"]) == 0
    assert tried == ["uvloop", "3.13", "uvloop"]  # each once
