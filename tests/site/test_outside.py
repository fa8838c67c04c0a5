"""Nothing leaves a site: whatever a host sends to an address outside is seen, and nothing is."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.failover_site import SITE, SiteProcess
from deployments.edge.drills import load
from deployments.edge.drills.load import client_of
from deployments.site.ground import namespaces_are_possible

pytestmark = [pytest.mark.cluster, pytest.mark.site]


def strayed(site: SiteProcess) -> dict[str, list[str]]:
    """Addresses outside that each host has sent anything to, Ray's and the hubs' look-ups included."""
    place = site.scene.place
    assert place.namespaces is not None
    found = {host: place.namespaces.strayed(host) for host in place.plan.hosts}
    return {host: addresses for host, addresses in found.items() if addresses}


# Named so that it comes last: everything that the other tests did is in it.
def test_zz_no_host_tried_to_reach_anything_outside_the_site(site: SiteProcess) -> None:
    assert strayed(site) == {}


@pytest.mark.slow
def test_an_mvp_site_works_without_a_cloud_and_tries_to_reach_nothing(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    if not namespaces_are_possible():
        pytest.skip("every host is a network namespace: needs root on Linux")
    folder = tmp_path_factory.mktemp("mvp")  # sockets have short paths
    file = folder / "site.yaml"
    file.write_text(SITE.read_text().replace("preset: production", "preset: mvp"))
    with SiteProcess("", folder, site=file) as mvp:
        assert mvp.scene.plan.cloud is None
        assert mvp.scene.ailments() == []
        patient = asyncio.run(load.new_patient(mvp.target))
        assert asyncio.run(_read(mvp, patient)) == 200
        assert strayed(mvp) == {}


async def _read(site: SiteProcess, patient: str) -> int:
    async with client_of(site.target) as client:
        return (await client.get(f"/fhir/Patient/{patient}")).status_code
