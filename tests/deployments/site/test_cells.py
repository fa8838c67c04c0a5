"""The cell configs of a site's hosts, as the reader that `medrec up` uses takes them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict

from configs.args import RecordsArgs
from configs.cell import CellConfig
from configs.reader import PROJECT_ROOT, ConfigError, load, read_values
from configs.site import load_site
from deployments.cell.store import records_args
from deployments.site.cells import cell_config
from deployments.site.plan import Plan, on_hosts, on_this_machine

LOCAL = PROJECT_ROOT / "configs" / "site-local.yaml"


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """The local site on the loopback."""
    return on_this_machine(load_site(LOCAL), tmp_path, "loopback")


def _loaded(plan: Plan, name: str) -> CellConfig:
    host = plan.hosts[name]
    host.cell_config.parent.mkdir(parents=True, exist_ok=True)
    host.cell_config.write_text(cell_config(plan, host))
    return load(host.cell_config)


def _records(plan: Plan, name: str) -> RecordsArgs:
    found = records_args(_loaded(plan, name))
    assert found is not None
    return found


def test_a_cell_reaches_the_primary_at_its_own_host_by_a_passfile(plan: Plan) -> None:
    host, records = plan.hosts["mac-b"], _records(plan, "mac-b")
    assert records.dsn is not None
    assert records.owner_dsn is not None
    dsn = conninfo_to_dict(records.dsn)
    assert (dsn["host"], dsn["port"]) == ("127.0.0.1", str(host.ports.primary))
    assert (dsn["user"], dsn["dbname"]) == ("medrec_app", "medrec")
    assert dsn["passfile"] == str(host.passfile)
    assert "password" not in dsn
    assert dsn["target_session_attrs"] == "read-write"
    assert conninfo_to_dict(records.owner_dsn)["user"] == "medrec_owner"
    assert records.deadline_s == 30


def test_a_cell_knows_its_peer_and_who_may_call_it(plan: Plan) -> None:
    others = _records(plan, "mac-a").others
    assert others.host == "mac-a"
    assert others.peer == f"http://127.0.0.1:{plan.hosts['mac-a'].ports.peer}"
    assert others.callers == ["mac-b", "edge-1", "edge-2"]


def test_a_token_of_one_cell_names_the_issuer_of_the_other(plan: Plan) -> None:
    a, b = (_records(plan, name).sign_in for name in ("mac-a", "mac-b"))
    assert a == b
    assert a.issuer == plan.public_url
    assert a.relying_party_id == "medrec.localhost"
    assert a.relying_party_origins == [plan.public_url]


def test_what_the_base_says_stays(plan: Plan) -> None:
    assert _records(plan, "mac-a").demo
    base = yaml.safe_load((PROJECT_ROOT / "configs" / "local.yaml").read_text())
    made = yaml.safe_load(cell_config(plan, plan.hosts["mac-a"]))
    assert made["applications"][0] == base["applications"][0]
    assert made["http_options"] == base["http_options"]
    # Both applications are given the same, which the reader insists on.
    assert made["applications"][1]["args"]["records"] == made["applications"][2]["args"]["records"]


def test_a_single_cell_has_no_peer(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(LOCAL.read_text().replace("preset: production", "preset: single"))
    plan = on_this_machine(load_site(file), tmp_path, "loopback")
    assert _records(plan, "mac-a").others.peer is None


def test_a_real_sites_config_has_the_paths_of_its_host(tmp_path: Path) -> None:
    plan = on_hosts(load_site(PROJECT_ROOT / "configs" / "site.yaml"))
    file = tmp_path / "cell.yaml"
    file.write_text(cell_config(plan, plan.hosts["mac-a"]))
    records = records_args(read_values(file))
    assert records is not None
    assert records.dsn is not None
    dsn = conninfo_to_dict(records.dsn)
    assert dsn["passfile"] == "/opt/medical-record/home/site/pgpass"
    assert dsn["port"] == "5433"


@pytest.mark.parametrize("name", ["edge-1", "witness"])
def test_a_host_without_a_cell_has_no_config_of_one(plan: Plan, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} runs no cell"):
        cell_config(plan, plan.hosts[name])


def test_a_base_that_is_no_cell_config_is_told_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "local.yaml").write_text("applications: [1]\n")
    plan = on_this_machine(load_site(LOCAL), tmp_path, "loopback")
    with pytest.raises(ConfigError, match="applications"):
        cell_config(plan, plan.hosts["mac-a"], root=tmp_path)
