"""The shape of a cell config: a Ray Serve config file with this project's applications."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.args import AiArgs, ApiArgs, DataArgs, Seconds, Strict

APPLICATION_NAMES = ("ai", "data", "api")
ImportPath = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]


class HttpOptions(Strict):
    """Serve's own proxy, behind which nobody stands: clients go to HAProxy."""

    host: str = Field(default="127.0.0.1", description="Address that Serve's proxy listens on.")
    port: int = Field(
        default=8001, ge=1, le=65535, description="Port that Serve's proxy listens on."
    )
    request_timeout_s: Seconds = Field(
        default=630.0,
        description="Serve's own limit of a request; above the API's, so that the API answers.",
    )
    keep_alive_timeout_s: Annotated[int, Field(gt=0)] = Field(
        default=75, description="Seconds that an idle connection to a replica is kept."
    )


class LoggingConfig(Strict):
    """Serve's logs. They hold paths and ids, never text."""

    encoding: Literal["TEXT", "JSON"] = Field(default="TEXT", description="Format of a log line.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least level that is written."
    )
    enable_access_log: bool = Field(
        default=True, description="Whether each request writes a line with method, path, status."
    )


class AiApplication(Strict):
    """The models: the `ai` virtual node."""

    name: Literal["ai"] = Field(description="The application's name.")
    import_path: ImportPath = Field(description="Its builder, `module:function`.")
    route_prefix: None = Field(description="Null: nothing outside the cell reaches a model.")
    args: AiArgs = Field(description="What the builder is given.")


class DataApplication(Strict):
    """What keeps the records in order: the `data` virtual node."""

    name: Literal["data"] = Field(description="The application's name.")
    import_path: ImportPath = Field(description="Its builder, `module:function`.")
    route_prefix: None = Field(description="Null: nothing outside the cell reaches it.")
    args: DataArgs = Field(description="What the builder is given.")


class ApiApplication(Strict):
    """The HTTP surface: the `api` virtual node."""

    name: Literal["api"] = Field(description="The application's name.")
    import_path: ImportPath = Field(description="Its builder, `module:function`.")
    route_prefix: Annotated[str, Field(pattern=r"^/")] = Field(description="Path it answers below.")
    args: ApiArgs = Field(description="What the builder is given.")


Application = Annotated[
    AiApplication | DataApplication | ApiApplication, Field(discriminator="name")
]


class CellConfig(Strict):
    """One file of this folder, as `serve deploy` takes it."""

    proxy_location: Literal["HeadOnly", "EveryNode", "Disabled"] = Field(
        description="Where Serve's own proxy runs."
    )
    http_options: HttpOptions = Field(
        default=HttpOptions(), description="Serve's own proxy and the replicas' HTTP servers."
    )
    logging_config: LoggingConfig = Field(default=LoggingConfig(), description="Serve's logs.")
    applications: list[Application] = Field(
        min_length=1, description="`ai`, `data` and `api`, each once at most."
    )

    @model_validator(mode="after")
    def _applications_are_unique(self) -> CellConfig:
        names = [app.name for app in self.applications]
        if len(set(names)) != len(names):
            raise ValueError("an application is given twice")
        return self
