"""The Serve application `api`: the API virtual node as one ingress deployment."""

from __future__ import annotations

import logging
import sys
from typing import Any

from fastapi import FastAPI
from ray import serve

from configs.args import ApiArgs, Limits
from deployments.ai.client import RayLanguageService
from deployments.options import serve_options
from serve_app.chat.handler import MAX_CHATS
from serve_app.surface import create_app

POOL = "api"
# The application refuses a chat by itself, in its own error shape, well before Serve would in
# plain text; probes and short requests get through beside full chats.
MAX_ONGOING_REQUESTS = 2 * MAX_CHATS
MAX_QUEUED_REQUESTS = 2 * MAX_CHATS


class Api:
    """One API replica. Serve asks it for the ASGI application once it is constructed."""

    def __init__(self, limits: Limits) -> None:
        write_log_lines()
        self._limits = limits

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(RayLanguageService(), self._limits, behind_serve=True)


def write_log_lines() -> None:
    """Send the `medrec` loggers' lines, JSON each, to this process's standard error."""
    log = logging.getLogger("medrec")
    if not log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False


def build(args: ApiArgs) -> serve.Application:
    """The application for `args`, as the configuration's `import_path` names it."""
    options = serve_options(
        POOL,
        "api",
        args.replicas,
        args.resources,
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        max_queued_requests=MAX_QUEUED_REQUESTS,
        request_timeout_s=args.limits.request_timeout_s,
    )
    deployment: Any = serve.deployment(**options)(serve.ingress()(Api))
    return deployment.bind(args.limits)
