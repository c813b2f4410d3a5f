"""Each extra has one door, and what a person reads who has not installed it."""

from __future__ import annotations

import importlib
import sys

import pytest

EXTRAS = [
    ("prometheus", "prometheus_client"),
    ("opentelemetry", "opentelemetry"),
]


@pytest.mark.parametrize(("extra", "package"), EXTRAS)
def test_a_missing_package_is_one_sentence_that_names_the_extra(
    extra: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what to type, and is an ImportError like any other."""
    door = f"posjournal_async.adapters.{extra}"
    for name in [name for name in sys.modules if name == door or name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError) as caught:
        importlib.import_module(door)
    assert str(caught.value) == f"{door} needs the extra \"{extra}\": pip install 'posjournal_async[{extra}]'"
