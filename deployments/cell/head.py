"""How a cell's Ray is started: environment and command, as data and as shell lines."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from configs.budgets import ray_resources, scaled
from configs.machine import machine
from configs.reader import PROJECT_ROOT
from deployments.cell.ports import Ports
from deployments.cell.state import HOME_VARIABLE, PUBLIC_URL_VARIABLE, CellError, Home

OBJECT_STORE_BYTES = 256 * 2**20
_NOWHERE = "http://127.0.0.1:9"
# Ray writes the machine's own address in place of 127.0.0.1.
_HERE = "localhost,127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16"
_RAY = (sys.executable, "-m", "ray.scripts.scripts")
# Longer than HAProxy takes to see that a replica drains: two checks, one second apart.
DRAIN_S = 4
# Longer than a closed connection's TIME_WAIT: Serve gives up for good on a port it cannot bind.
PORT_QUARANTINE_S = 75


def ray_dir(home: Home) -> Path:
    """Ray's folder: short, because socket paths end at 104 bytes, and one for each home."""
    return Path(tempfile.gettempdir()) / f"medrec-{os.getuid()}-{home.digest}"


def prepare_ray_dir(folder: Path) -> None:
    """Create the folder for its owner only, and drop what earlier runs left except the last one."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise CellError(f"{folder} belongs to somebody else")
    folder.chmod(0o700)
    # A killed run leaves its address behind; Ray then takes any GCS of that address on the machine,
    # another network namespace's too, for this cell's own.
    (folder / "ray_current_cluster").unlink(missing_ok=True)
    for session in sorted(folder.glob("session_2*"))[:-1]:
        shutil.rmtree(session, ignore_errors=True)


def environment(home: Home, ports: Ports) -> dict[str, str]:
    """The variables that differ from Ray's defaults, and why."""
    return {
        # The dashboard and job API run code, and GCS and raylet listen on every address.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(home.token_file),
        # Direct ingress, gRPC between deployments, no extra threads: see docs/operations.md.
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(ports.ingress_first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(ports.ingress_last),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DRAIN_S),
        "RAY_SERVE_PORT_QUARANTINE_S": str(PORT_QUARANTINE_S),
        # Serve's ten looks a second are most of what an idle controller does.
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.25",
        "RAY_DASHBOARD_ADDRESS": f"http://127.0.0.1:{ports.dashboard}",
        # Else the head waits half a minute for a cluster that ends with it.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        # Ray's own 15 would let anything else on the machine starve the replicas.
        "RAY_worker_niceness": "0",
        # Serve's own answers on the API's ports, in the API's error shape.
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_app.ingress:middlewares",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Switched off, Ray 2.60 still reports that it is, and asks three clouds' metadata services
        # whether it runs there. Both end at this port of the loopback, where nobody listens.
        "RAY_USAGE_STATS_REPORT_URL": _NOWHERE,
        "http_proxy": _NOWHERE,
        "no_proxy": _HERE,
        "grpc_proxy": "",  # none for the calls between replicas
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        HOME_VARIABLE: str(home.path),
        # What tokens name as their issuer, unless the config does.
        PUBLIC_URL_VARIABLE: f"http://127.0.0.1:{ports.public}",
    }


def command(ports: Ports, folder: Path) -> list[str]:
    """`ray start` for the head, with each virtual node's budget as custom resources."""
    resources = ray_resources(scaled(machine()))
    options = {
        "node-ip-address": "127.0.0.1",
        "port": ports.gcs,
        "node-manager-port": ports.node_manager,
        "object-manager-port": ports.object_manager,
        "ray-client-server-port": ports.client_server,
        "metrics-export-port": ports.metrics,
        "dashboard-host": "127.0.0.1",
        "dashboard-port": ports.dashboard,
        "dashboard-agent-grpc-port": ports.agent_grpc,
        "dashboard-agent-listen-port": ports.agent_http,
        "runtime-env-agent-port": ports.runtime_env_agent,
        "min-worker-port": ports.worker_first,
        "max-worker-port": ports.worker_last,
        "num-cpus": max(1, int(machine().cpu)),
        "num-gpus": 0,  # a Mac's GPU is divided by the budgets' Metal cores instead
        "object-store-memory": OBJECT_STORE_BYTES,
        "include-dashboard": "true",
        "include-log-monitor": "false",
        "temp-dir": folder,
        "resources": json.dumps(resources),
    }
    return [
        "ray",
        "start",
        "--head",
        *(f"--{name}={value}" for name, value in options.items()),
        "--disable-usage-stats",
    ]


def runnable(line: list[str]) -> list[str]:
    """The same command with the Ray that belongs to this Python."""
    return [*_RAY, *line[1:]]


def shell_lines(variables: Mapping[str, str], line: list[str]) -> str:
    """What anyone can type to start the same Ray."""
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    start = " \\\n  ".join([shlex.join(line[:3]), *(shlex.quote(part) for part in line[3:])])
    return "\n".join([*exports, start])


def process_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with the cell's variables, for Ray and its children."""
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_TOKEN"}
    path = os.pathsep.join(
        part for part in (str(PROJECT_ROOT), os.environ.get("PYTHONPATH")) if part
    )
    return {**inherited, "PYTHONPATH": path, **variables}
