"""The stream through a real HAProxy over two replicas: as it opens, as it is refused, as one dies."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from websockets.exceptions import InvalidStatus

from tests.deployments.edge.test_haproxy import Front, front
from tests.serve_app.alerts.conftest import (
    Replica,
    Served,
    begun,
    closed,
    eventually,
    next_of,
)

__all__ = ("front",)


async def up(front: Front, count: int) -> None:
    await asyncio.to_thread(front.wait_up, count)


def through(front: Front, replica: Replica) -> Replica:
    return replace(replica, port=int(front.url.rsplit(":", 1)[1]))


async def test_a_stream_opens_is_refused_by_status_and_goes_on_at_the_other_replica(
    served: Served, front: Front
) -> None:
    async with served.replica(port=front.ports[1]) as other:
        edge = through(front, other)
        async with served.replica(port=front.ports[0]):
            await up(front, 2)
            for who, status in ((None, 401), ("analyst", 403)):
                with pytest.raises(InvalidStatus) as caught:
                    async with edge.stream(who):
                        pass
                response = caught.value.response
                assert response.status_code == status
                assert json.loads(response.body)["status"] == status
                assert len(response.headers.get_all("x-request-id")) == 1
            # One for each replica: `leastconn` spreads them.
            one, two = await edge.stream("physician"), await edge.stream("physician")
            for each in (one, two):
                await begun(each)
            first = await served.ward.raised()
            seen = [await next_of(each) for each in (one, two)]
            assert [each["alert"]["id"] for each in seen] == [first, first]
        # Its streams end with the replica that stops, and only those.
        await eventually(lambda: 1012 in (one.close_code, two.close_code))
        gone, kept = (one, two) if one.close_code == 1012 else (two, one)
        assert await closed(gone) == (1012, "")
        assert kept.close_code is None
        second = await served.ward.raised()
        assert (await next_of(kept))["alert"]["id"] == second
        async with edge.stream(query=f"?after={seen[0]['cursor']}") as again:
            assert (await next_of(again))["resumed"] is True
            assert (await next_of(again))["alert"]["id"] == second
        await kept.close()
