"""Work that ends when its client leaves.

A server tells of a closed connection either by an `http.disconnect` message (uvicorn) or by
cancelling the request's task (Ray Serve), and may do both at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive

CLEANUP_S = 5.0


async def while_connected(work: Coroutine[Any, Any, None], receive: Receive) -> bool:
    """Run `work` until it ends or the client leaves; tells whether the client was there to the end.

    `receive` must have delivered the whole body. On a disconnect `work` is cancelled exactly once,
    so that its own cleanup runs undisturbed, and is waited for, `CLEANUP_S` at most.
    """
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        completed = task.done()
        if not completed:
            task.cancel()
            await asyncio.wait({task}, timeout=CLEANUP_S)
    if completed:
        await task
    elif task.done() and not task.cancelled():
        # Retrieve it: an error in the cleanup of an abandoned request concerns nobody.
        task.exception()
    return completed


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
