"""Contract suites for authors of backends. Needs pytest and pytest-asyncio: `pip install posjournal_async[testing]`."""

import pytest

# Before the import: a failed `assert` of the suite then shows its values, as one in a test file does.
pytest.register_assert_rewrite("posjournal_async.testing.storage_contract")

from posjournal_async.testing.storage_contract import StorageContract  # noqa: E402 - see above

__all__ = ["StorageContract"]
