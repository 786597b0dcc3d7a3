from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One organism cache for all end-to-end tests of a process."""
    return tmp_path_factory.mktemp("organisms")
