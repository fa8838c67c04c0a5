"""What `medrec demo load` does: find the cell and its demo credentials, load, tell what was done."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import jwt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from configs.args import ApiArgs
from configs.reader import load as load_config
from deployments.cell import state
from deployments.cell.state import CellError
from deployments.data.demo.loading import Summary, load
from deployments.data.demo.server import LoadFailed, Server
from deployments.data.demo.shapes import Population, Staff

REQUEST_TIMEOUT_S = 60.0


def run(patients: int, seed: int, concurrency: int, *, quiet: bool) -> None:
    """Load into the cell of this home. Raises `CellError`."""
    home = state.home()
    found = state.read(home)
    if found is None or not found.is_alive:
        raise CellError(f"no cell runs in {home.path}: start one with medrec up")
    credentials = demo_credentials(home.path / "credentials.json")
    systems = identifier_systems(Path(found.config))
    columns = (
        TextColumn("patients"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True, quiet=quiet)) as progress:
        task = progress.add_task("", total=patients)
        try:
            summary = asyncio.run(
                load_into(
                    *(found.base_url, credentials, systems, patients, seed, concurrency),
                    advance=lambda: progress.advance(task),
                )
            )
        except LoadFailed as error:
            again = "what was loaded stays; run medrec demo load again"
            raise CellError(f"{error}\n{again}") from error
    show(summary)


async def load_into(
    base_url: str,
    credentials: dict[str, Any],
    systems: dict[str, str],
    patients: int,
    seed: int,
    concurrency: int,
    *,
    advance: Callable[[], None],
) -> Summary:
    """The same against any address. Raises `LoadFailed`."""
    headers = {"authorization": f"Bearer {credentials['api_key']}"}
    limits = httpx.Limits(max_connections=concurrency + 1)
    async with httpx.AsyncClient(
        base_url=base_url,
        headers=headers,
        limits=limits,
        timeout=REQUEST_TIMEOUT_S,
        trust_env=False,
    ) as client:
        claims = {
            user["role"]: await _claims(client, user)
            for user in credentials["users"]
            if user["role"] in ("physician", "nurse")
        }
        server = Server(client)
        organization = claims.get("physician", {}).get("org")
        if organization and not await server.holds(f"Organization/{organization}"):
            organization = None
        population = Population(
            seed=seed,
            as_of=datetime.now(UTC).date(),
            organization=organization,
            staff=Staff((), _reference(claims, "physician"), _reference(claims, "nurse")),
            systems=systems,
        )
        return await load(server, population, patients, concurrency=concurrency, advance=advance)


def demo_credentials(file: Path) -> dict[str, Any]:
    """The file that the first start of a demo cell writes. Raises `CellError`."""
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CellError(
            f"{file} is not there: only a cell with demo users (configs/local.yaml) takes demo "
            "patients"
        ) from None
    except (OSError, ValueError) as error:
        raise CellError(f"{file} cannot be read") from error
    return found


def identifier_systems(config: Path) -> dict[str, str]:
    """The URIs of `cpf` and `cns` that the cell was configured with."""
    for application in load_config(config).applications:
        if isinstance(application.args, ApiArgs):
            return {str(k): v for k, v in application.args.records.identifier_systems.items()}
    raise CellError(f"{config} has no application api")


async def _claims(client: httpx.AsyncClient, user: dict[str, str]) -> dict[str, Any]:
    """What the user's own access token says of its bearer; nothing is decided by it here."""
    form = {
        "grant_type": "password",
        "username": user["username"],
        "password": user["password"],
    }
    try:
        answer = await client.post("/v1/auth/token", data=form, headers={"authorization": ""})
        answer.raise_for_status()
        claims: dict[str, Any] = jwt.decode(
            answer.json()["access_token"], options={"verify_signature": False}
        )
    except (httpx.HTTPError, KeyError, ValueError, jwt.PyJWTError) as error:
        raise LoadFailed(f"the demo {user['role']} cannot sign in") from error
    return claims


def _reference(claims: dict[str, dict[str, Any]], role: str) -> str | None:
    id = claims.get(role, {}).get("practitioner")
    return f"Practitioner/{id}" if id else None


def show(summary: Summary) -> None:
    """What was loaded, for the operator."""
    console = Console(highlight=False, soft_wrap=True)
    table = Table("type", "created", box=None)
    for type, count in sorted(summary.by_type.items(), key=lambda item: -item[1]):
        table.add_row(type, f"{count:,}")
    if summary.by_type:
        console.print(table)
    rate = summary.resources / summary.duration_s if summary.duration_s else 0
    console.print(
        f"{summary.patients} patients loaded, {summary.present} were there; "
        f"{summary.resources:,} resources in {summary.duration_s:.0f} s ({rate:.0f}/s)"
    )
    console.print(
        f"{summary.in_care} in the care of the demo physician, {summary.refusals} refuse AI"
    )
