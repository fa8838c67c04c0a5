"""`medrec serve CONFIG`: put a checked config in place of the running one."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from configs.reader import load
from deployments.cell import state
from deployments.cell.running import deployable
from deployments.cell.serve_api import ServeApi
from deployments.cell.state import CellError


def run(config: Path, timeout_s: float) -> None:
    """Deploy and wait. Raises `ConfigError` or `CellError`."""
    console = Console(highlight=False, soft_wrap=True)
    site = load(config)
    home = state.home()
    found = state.read(home)
    if found is None:
        raise CellError(f"no cell runs in {home.path}: medrec up, or medrec ray start")
    api = ServeApi(found.dashboard_url, home.token_file.read_text(encoding="ascii"))
    try:
        api.deploy(deployable(config, found.ports))
        with console.status("deploying") as spinner:
            api.wait_running(
                [app.name for app in site.applications],
                timeout_s=timeout_s,
                tell=lambda words: spinner.update(escape(words)),
                still_alive=lambda: None,
            )
    finally:
        api.close()
    console.print(f"{config} runs")
