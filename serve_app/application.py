"""The Serve application `api`: the API virtual node as one ingress deployment."""

from __future__ import annotations

import logging
import sys
from typing import Any

from fastapi import FastAPI
from ray import serve

from configs.args import ApiArgs
from configs.reader import Demand
from deployments.admission import admit
from deployments.ai.client import RayLanguageService
from deployments.cell.state import home
from deployments.options import serve_options
from serve_app.assembly import assemble
from serve_app.chat.handler import MAX_CHATS
from serve_app.surface import create_app

NAME = "api"
# The application refuses a chat by itself, in its own error shape, well before Serve would in
# plain text; probes and short requests get through beside full chats.
MAX_ONGOING_REQUESTS = 2 * MAX_CHATS
MAX_QUEUED_REQUESTS = 2 * MAX_CHATS


class Api:
    """One API replica. Serve asks it for the ASGI application once it is constructed."""

    def __init__(self, args: ApiArgs) -> None:
        write_log_lines()
        self._args = args

    def __serve_build_asgi_app__(self) -> FastAPI:
        services = assemble(self._args, home(), RayLanguageService())
        return create_app(services, self._args.limits, behind_serve=True)


def write_log_lines() -> None:
    """Send the `medrec` loggers' lines, JSON each, to this process's own standard error.

    Serve replaces `sys.stderr` in a replica by a logger that may hold a thousand lines back.
    """
    log = logging.getLogger("medrec")
    if not log.handlers:
        handler = logging.StreamHandler(sys.__stderr__)
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
        logging.getLogger("uvicorn.error").addFilter(_is_no_refused_websocket)


def _is_no_refused_websocket(record: logging.LogRecord) -> bool:
    """uvicorn 0.54 calls every WebSocket that is refused by a status a failure; anybody makes them."""
    return record.msg != "ASGI callable returned without completing handshake."


def build(args: dict[str, Any] | ApiArgs) -> serve.Application:
    """The application for `args` (see configs/args.py), as a config's `import_path` names it.

    Raises `ValidationError` for args that are not those of the application, `BudgetsMissing` on a
    Ray without budgets, and `ConfigError` for a demand beyond them.
    """
    api = ApiArgs.model_validate(args)
    admit(NAME, [Demand(NAME, "args", NAME, api.replicas, api.resources)])
    options = serve_options(
        NAME,
        NAME,
        api.replicas,
        api.resources,
        # Streams of alerts stay open, and must not take the place of requests.
        max_ongoing_requests=MAX_ONGOING_REQUESTS + api.records.alerts.max_streams,
        max_queued_requests=MAX_QUEUED_REQUESTS,
        request_timeout_s=api.limits.request_timeout_s,
    )
    deployment: Any = serve.deployment(**options)(serve.ingress()(Api))
    return deployment.bind(api)
