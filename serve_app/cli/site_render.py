"""`medrec site render`: every file for every host of a real site, ready to be copied there."""

from __future__ import annotations

from pathlib import Path

from configs.site import load_site
from deployments.cell.state import CellError
from deployments.site import passwords
from deployments.site.install import INDEX
from deployments.site.plan import on_hosts
from deployments.site.render import Secrets, render


def run(site: Path, out: Path, secrets: Path | None) -> None:
    """Write below `out`; with a folder of `secrets`, passwords are made there once and put in.

    Raises `ConfigError`, `CellError`.
    """
    plan = on_hosts(load_site(site))
    if secrets is not None:
        passwords.read_or_make(secrets / passwords.FILE)
    try:
        written = render(plan, out, Secrets.of(secrets) if secrets is not None else None)
    except OSError as error:
        raise CellError(f"{error.filename} cannot be written: {error.strerror}") from error
    for name in plan.hosts:
        count = sum(path.is_relative_to(out / name) for path in written)
        print(f"{name}: {count} files in {out / name}; start with {out / name / INDEX}")
    if secrets is None:
        print("without secrets: no certificates, passwords or patroni.yml; --secrets puts them in")
