"""One local site for all of these tests, each host a network namespace; started and ended once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.failover_site import SiteProcess
from deployments.site.ground import namespaces_are_possible


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteProcess]:
    if not namespaces_are_possible():
        pytest.skip("every host is a network namespace: needs root on Linux")
    with SiteProcess("", tmp_path_factory.mktemp("site")) as running:
        yield running
