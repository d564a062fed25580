"""Ring 3: real processes that die. `python -m tests.proof.deaths` plays the scenes at full length."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.proof.deaths import STANDSTILL, play_deploy, play_poison

if TYPE_CHECKING:
    from tests.harness.servers import Server

SHORT = {"max_attempts": 3, "patience": 0.0}
"""With so few attempts there is one trial, after little rest."""


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_a_stream_that_kills_is_buried_and_no_other(server: Server) -> None:
    result = await play_poison(server.url, members=2, innocent=20, idle=5, retry=SHORT)
    assert result.letters == {"poison-0": f"its owners died {result.deaths} times"}
    assert 3 <= result.deaths <= 5
    assert result.standstill < 2 * STANDSTILL  # on a machine that is busy with other tests


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_a_bad_deploy_buries_nothing(server: Server) -> None:
    result = await play_deploy(
        server.url, members=2, streams=20, lasting=0.0, deaths=10, life=0.3, progress=False, retry=SHORT
    )
    assert result.letters == {}
    assert result.took < 30
