"""The command line says what it cannot do, and a run of a part works without the peers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.results import Results

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--adapters", "raw-loop,mysql"],
            "there is no adapter 'mysql'; there are posjournal, posjournal-uvloop, raw-loop",
        ),
        (["--workloads", "W12"], "there is no workload 'W12'; there are W1, W2"),
        (["--repetitions", "0"], "expected a number from 1 on, found '0'"),
        (["--fast"], "unrecognized arguments: --fast"),
        (["--rep", "0"], "unrecognized arguments: --rep 0"),
    ],
)
def test_what_is_not_known_is_refused(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence, and the exit code of a wrong command line."""
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert sentence in capsys.readouterr().err


def test_a_directory_in_memory_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync costs nothing there."""
    monkeypatch.setattr("benchmarks.machine.file_system", lambda _: "tmpfs")
    with pytest.raises(SystemExit):
        main(["--dir", "somewhere"])
    assert "somewhere is on tmpfs, which is no disk" in capsys.readouterr().err


def test_a_part_is_measured_and_written_where_it_is_told(tmp_path: Path) -> None:
    """Fresh processes, the modelled disk or the reason why there is none, three files, and nothing left behind."""
    command = [
        *(sys.executable, "-m", "benchmarks", "--quick", "--seconds", "0.01"),
        *("--adapters", "posjournal,raw-loop", "--workloads", "W1,W3"),
        *("--dir", str(tmp_path / "data"), "--out", str(tmp_path / "out")),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["rates.svg", "report.md", "results.json"]
    assert list((tmp_path / "data").iterdir()) == []
    results = Results.from_json((tmp_path / "out" / "results.json").read_text())
    assert results.ratios("W1", ("raw-loop",))
    synced = results.values("W3 150 us", "raw-loop", "syncs_per_item")
    if synced:
        assert synced == {0: 1.0}
    else:
        assert "modelled disk" in results.why_missing("W3 150 us", "raw-loop")
