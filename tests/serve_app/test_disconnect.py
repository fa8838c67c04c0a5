from __future__ import annotations

import asyncio

import pytest

from serve_app.disconnect import while_connected
from tests.serve_app.fake_language import RawConnection


async def test_work_that_ends_by_itself_is_complete() -> None:
    async def work() -> None:
        await asyncio.sleep(0)

    assert await while_connected(work(), RawConnection().incoming.get)


async def test_an_error_of_the_work_is_raised() -> None:
    async def work() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await while_connected(work(), RawConnection().incoming.get)


class Work:
    """Waits for ever, and needs a moment to clean up."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.cleaned = False
        self.cancellations = 0

    async def run(self) -> None:
        self.began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancellations += 1
            raise
        finally:
            await asyncio.sleep(0.01)
            self.cleaned = True


async def test_a_client_that_leaves_ends_the_work_and_its_cleanup_is_waited_for() -> None:
    work, connection = Work(), RawConnection()
    running = asyncio.create_task(while_connected(work.run(), connection.incoming.get))
    await work.began.wait()
    connection.leave()
    assert not await asyncio.wait_for(running, 2)
    assert work.cleaned


async def test_a_disconnect_and_cancellations_at_once_cancel_the_work_only_once() -> None:
    work, connection = Work(), RawConnection()
    running = asyncio.create_task(while_connected(work.run(), connection.incoming.get))
    await work.began.wait()
    connection.leave()
    running.cancel()
    await asyncio.sleep(0.001)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.sleep(0.05)
    assert work.cleaned
    assert work.cancellations == 1
