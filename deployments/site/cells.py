"""The cell config of a host in a site: the one it names, with the site's addresses put in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from psycopg.conninfo import make_conninfo

from configs.reader import PROJECT_ROOT, ConfigError, Problem, read_yaml
from deployments.data.postgres import APPLICATION, DATABASE, OWNER
from deployments.site.passwords import COPY
from deployments.site.plan import LOOPBACK, HostPlan, Plan

# A database failover takes up to 20 s, and a request that needs the database waits for it.
_DEADLINE_S = 30.0
_WITH_RECORDS = ("data", "api")


def cell_config(plan: Plan, host: HostPlan, *, root: Path = PROJECT_ROOT) -> str:
    """The YAML of a cell's or the emergency cell's config, as `medrec up` reads it.

    Raises `ConfigError` if the config that the site file names is not one of a cell.
    """
    if host.host.config is None:
        raise ValueError(f"{host.name} runs no cell")
    file = root / host.host.config
    raw = read_yaml(file)
    overrides = _emergency(plan, host, root) if host == plan.cloud else _cell(plan, host)
    for key, args in _applications(file, raw):
        records = args.get("records") or {}
        if not isinstance(records, dict):
            raise ConfigError(file, [Problem(f"{key}.args.records", "is not a block of settings")])
        args["records"] = _laid_over(records, overrides)
    return yaml.dump(raw, Dumper=_Plain, sort_keys=False)


def _cell(plan: Plan, host: HostPlan) -> dict[str, Any]:
    others = [cell for cell in plan.cells if cell != host]
    peer = {"peer": f"http://{LOOPBACK}:{host.ports.peer}"} if others else {}
    return {
        "dsn": _dsn(host, host.ports.primary, APPLICATION),
        "owner_dsn": _dsn(host, host.ports.primary, OWNER),
        "deadline_s": _DEADLINE_S,
        "failover_wait_s": _DEADLINE_S,
        **_of_the_site(plan),
        "others": {
            "host": host.name,
            **peer,
            "callers": [each.name for each in (*others, *plan.edges)],
        },
    }


def _emergency(plan: Plan, host: HostPlan, root: Path) -> dict[str, Any]:
    """It has records of its own; the copy comes by the edges' way to the primary, keys from cells."""
    callers = [each.name for each in (*plan.cells, *plan.edges)]
    return {
        **_of_the_site(plan),
        # A demo's people and keys come with the copy, and any other config refuses them.
        "demo": _is_demo(plan, root),
        "others": {"host": host.name, "callers": callers},
        "emergency": {
            "source_dsn": _dsn(host, host.ports.copy, COPY),
            "estimate_s": int(plan.site.failover.estimate_s),
            "copy_max_age_s": plan.site.emergency.copy_limit_s,
        },
    }


def _is_demo(plan: Plan, root: Path) -> bool:
    """Whether the site's cells are a demo."""
    file = root / str(plan.cells[0].host.config)
    return any(
        (args.get("records") or {}).get("demo") is True
        for _, args in _applications(file, read_yaml(file))
    )


def _of_the_site(plan: Plan) -> dict[str, Any]:
    return {
        "organization": plan.site.organization,
        "phase": "mvp" if plan.site.preset == "mvp" else "production",
        "sign_in": {
            "issuer": plan.public_url,
            "relying_party_id": plan.site.edge.public_name,
            "relying_party_origins": [plan.public_url],
        },
    }


def _dsn(host: HostPlan, port: int, role: str) -> str:
    return make_conninfo(
        host=LOOPBACK,
        port=port,
        user=role,
        dbname=DATABASE,
        passfile=str(host.passfile),
        connect_timeout=3,
        keepalives_idle=10,
        keepalives_interval=2,
        keepalives_count=3,
        # A server that has just lost the lead still answers for a moment.
        target_session_attrs="read-write",
    )


def _applications(file: Path, raw: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Arguments of the applications that keep records, with the key of each."""
    found = raw.get("applications")
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ConfigError(file, [Problem("applications", "is not a list of applications")])
    for index, application in enumerate(found):
        if application.get("name") in _WITH_RECORDS:
            args = application.setdefault("args", {})
            if not isinstance(args, dict):
                raise ConfigError(
                    file, [Problem(f"applications[{index}].args", "is not a block of settings")]
                )
            yield f"applications[{index}]", args


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` over `below`; blocks of both are laid over each other as well."""
    laid = dict(below)
    for key, value in above.items():
        known = laid.get(key)
        both = isinstance(known, dict) and isinstance(value, dict)
        laid[key] = _laid_over(known, value) if both and isinstance(known, dict) else value
    return laid


class _Plain(yaml.SafeDumper):
    """Without anchors: each application says by itself what it is given."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
