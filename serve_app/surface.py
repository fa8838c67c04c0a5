"""The surface as one ASGI application: routes, middlewares, and the service that they speak to."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from configs.args import Limits
from deployments.ai.client import LanguageService, ModelCard
from models.errors import ModelNotFound
from serve_app import openapi
from serve_app.auth.guard import SignedIn
from serve_app.chat.handler import ChatHandler
from serve_app.denials import Denials
from serve_app.errors import NotReady, answer_for, surface_of
from serve_app.exposition import Exposition
from serve_app.metrics import Meters
from serve_app.middleware import AccessLog, Errors
from serve_app.modes.gate import ModeGate, ModeHeader
from serve_app.services import Services
from serve_app.shapes import Health, ModelList, ModelObject
from serve_app.trace import RequestIds, trace_of

OWNER = "medical-record"


class Handled(Response):
    """A response that an ASGI application makes by itself."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__()
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def create_app(
    services: Services,
    limits: Limits,
    *,
    exposition: Exposition | None = None,
    behind_serve: bool = False,
) -> FastAPI:
    """The application of one API replica; `behind_serve` when Ray Serve's server carries it."""
    meters = Meters()
    service = services.language
    app = FastAPI(
        title="Medical Record",
        version=_version(),
        description="Clinical AI on the hospital's own machines, spoken to as OpenAI's API is.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan(services),
    )
    _add_chat(app, ChatHandler(service, limits, meters, services.duties, basic=services.basic_chat))
    _add_models(app, service)
    _add_health(app, service)
    _add_metrics(app, exposition or Exposition())
    for add_routes in services.routes:
        add_routes(app)
    openapi.install(app)
    app.add_exception_handler(HTTPException, _routing_error)
    # The last one added is the outermost.
    for inner in services.behind_guard:
        app.add_middleware(inner.cls, *inner.args, **inner.kwargs)
    app.add_middleware(
        SignedIn,
        authority=services.authority,
        deadline_s=services.deadline_s,
        callers=services.callers,
    )
    standing = services.standing
    app.add_middleware(ModeGate, standing=standing, estimate_s=services.estimate_s)
    app.add_middleware(Errors, denials=Denials(services.audit))
    app.add_middleware(AccessLog, meters=meters)
    app.add_middleware(RequestIds, echoed_outside=behind_serve)
    app.add_middleware(ModeHeader, standing=standing)
    return app


def _version() -> str:
    try:
        return version("medical-record")
    except PackageNotFoundError:
        return "0"


def _lifespan(services: Services) -> Any:
    service = services.language

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        start, close = getattr(service, "start", None), getattr(service, "close", None)
        if start is not None:
            start()
        app.state.stopping = False
        try:
            async with services.running():
                yield
        finally:
            app.state.stopping = True
            if close is not None and inspect.isawaitable(closing := close()):
                await closing

    return lifespan


async def _routing_error(request: Request, error: Exception) -> Response:
    trace = trace_of(request.scope)
    answer = answer_for(error, trace.request_id)
    trace.code = answer.code
    surface = surface_of(request.url.path)
    response = Response(answer.body(surface), answer.status)
    response.raw_headers.extend(answer.response_headers(surface))
    return response


def _add_chat(app: FastAPI, handler: ChatHandler) -> None:
    @app.post(
        "/v1/chat/completions",
        summary="Answer a conversation",
        tags=["chat"],
        responses=openapi.chat_responses(),
        openapi_extra=openapi.chat_extra(),
    )
    async def chat_completions() -> Response:
        return Handled(handler)


def _model_object(card: ModelCard) -> dict[str, Any]:
    return {"id": card.id, "object": "model", "created": card.created, "owned_by": OWNER}


def _json(values: Any) -> Response:
    headers = {"cache-control": "no-store"}
    return Response(orjson.dumps(values), media_type="application/json", headers=headers)


def _add_models(app: FastAPI, service: LanguageService) -> None:
    @app.get(
        "/v1/models",
        summary="The models served here",
        tags=["models"],
        response_model=ModelList,
        responses=openapi.error_responses(),
    )
    async def list_models() -> Response:
        data = [_model_object(card) for card in service.state().models]
        return _json({"object": "list", "data": data})

    @app.get(
        "/v1/models/{model:path}",
        summary="One model",
        tags=["models"],
        response_model=ModelObject,
        responses=openapi.error_responses(404),
        openapi_extra=openapi.model_extra(),
    )
    async def retrieve_model(request: Request) -> Response:
        model = request.path_params["model"]
        for card in service.state().models:
            if card.id == model:
                return _json(_model_object(card))
        raise ModelNotFound("No model of this name is served here.", param="model")


def _add_health(app: FastAPI, service: LanguageService) -> None:
    @app.get(
        "/health/live",
        summary="This replica runs",
        tags=["health"],
        response_model=Health,
        responses=openapi.error_responses(),
    )
    async def live() -> Response:
        return _json({"status": "ok"})

    @app.get(
        "/health/ready",
        summary="This replica can serve",
        tags=["health"],
        response_model=Health,
        responses=openapi.error_responses(503),
    )
    async def ready() -> Response:
        # Only what this process knows by itself: a shared database that is away for a moment must
        # not mark every machine down at once.
        if getattr(app.state, "stopping", False):
            raise NotReady("This replica is stopping.")
        if not service.state().models:
            raise NotReady("No model has been announced to this replica yet.")
        return _json({"status": "ready"})


def _add_metrics(app: FastAPI, exposition: Exposition) -> None:
    @app.get(
        "/metrics",
        summary="Prometheus exposition of the whole cell",
        tags=["health"],
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
            **openapi.error_responses(503),
        },
    )
    async def metrics() -> Response:
        page = await exposition.page()
        return Response(page.body, headers={"content-type": page.content_type})
