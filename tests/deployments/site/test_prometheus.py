"""Proves that Prometheus takes its file, and that it scrapes what the firewalls let it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from configs.reader import PROJECT_ROOT
from configs.site import load_site
from deployments.site.plan import Plan, on_hosts
from deployments.site.prometheus import jobs, prometheus_files
from deployments.site.trust.renewal import ensure_site, host_files
from tests.configs.test_prometheus import promtool


@pytest.fixture
def plan() -> Plan:
    return on_hosts(load_site(PROJECT_ROOT / "configs" / "site.yaml"))


@pytest.mark.parametrize("alertmanager", [None, "127.0.0.1:9093"])
def test_promtool_finds_the_whole_configuration_right(
    plan: Plan, tmp_path: Path, alertmanager: str | None
) -> None:
    ensure_site(tmp_path / "ca", {"monitoring": []}, [])
    host_files(tmp_path / "ca", "monitoring").copy_to(tmp_path / "tls")
    files = prometheus_files(plan, tls=tmp_path / "tls", alertmanager=alertmanager)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    done = promtool("check", "config", str(tmp_path / "prometheus.yml"))
    assert done.returncode == 0, done.stdout + done.stderr
    read = yaml.safe_load(files["prometheus.yml"])
    assert ("alerting" in read) == (alertmanager is not None)
    assert all(job["tls_config"]["min_version"] == "TLS13" for job in read["scrape_configs"])


def test_every_host_that_measures_is_scraped_by_the_job_that_the_rules_name(plan: Plan) -> None:
    found = {job.name: {target.host for target in job.targets} for job in jobs(plan)}
    assert found == {
        "medrec-site": {"edge-1", "edge-2"},
        "medrec-cell": {"mac-a", "mac-b", "cloud"},
        "medrec-haproxy": {"edge-1", "edge-2", "mac-a", "mac-b", "cloud"},
    }
    edge = plan.edges[0]
    assert jobs(plan)[0].targets[0].address == f"{edge.address}:{edge.ports.steward}"
