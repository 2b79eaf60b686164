"""What the tests of the extension share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgepose import _core


@pytest.fixture(params=_core.available_simd_levels())
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """The test runs once with each instruction set that this processor has."""
    before = _core.simd_level()
    _core.set_simd_level(request.param)
    yield request.param
    _core.set_simd_level(before)
