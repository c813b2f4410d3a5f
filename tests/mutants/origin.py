"""A plugin of pytest: the tests of a mutant see the mutant, not the library that happens to be installed."""

from __future__ import annotations

from pathlib import Path

import pytest

import posjournal_async


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to run tests on a library that is not beside them."""
    library = Path(posjournal_async.__file__)
    if not library.is_relative_to(config.rootpath):
        raise pytest.UsageError(f"the library is not that of {config.rootpath}: {library}")
