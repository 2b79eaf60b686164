"""Fixtures that every test may use."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine makes single examples slow; that is no failure.
settings.register_profile("edgepose", deadline=None)
settings.load_profile("edgepose")

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models and photos beside the repository; a test that needs it is skipped without it."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder of real models and photos, ../shared")
    return SHARED


def pytest_configure() -> None:
    """Ctrl-C does what it does at a terminal, also where the tests run in the background with it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
