"""One local site for all of these tests, each host a network namespace; started and ended once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.failover_site import SiteProcess
from deployments.site.ground import namespaces_are_possible


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What starts a site of its own comes before the shared one: there is room for one at a time."""
    items.sort(key=_shares_the_site)


def _shares_the_site(item: pytest.Item) -> bool:
    shares = "site" in getattr(item, "fixturenames", ())
    return shares and item.path.is_relative_to(Path(__file__).parent)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteProcess]:
    if not namespaces_are_possible():
        pytest.skip("every host is a network namespace: needs root on Linux")
    with SiteProcess("", tmp_path_factory.mktemp("site")) as running:
        yield running
