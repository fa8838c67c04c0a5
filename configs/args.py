"""The typed arguments of the Serve applications, as the YAML files in this folder write them.

Every model is strict and refuses keys that it does not know, so that a typing error is an error
and not a default. Amounts of resources are those of one replica.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
HostName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]

# What the cell's own PostgreSQL takes, and how much of it is for everyone but the API's pools:
# the chain's appenders, the custodian, migrations, operators' commands.
LOCAL_CONNECTIONS = 200
RESERVED_CONNECTIONS = 60

_COMMIT = re.compile(r"^[0-9a-f]{40}$")


class Strict(BaseModel):
    """A block of configuration: exact types, no unknown keys, no change after reading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Resources(Strict):
    """What one replica draws from the budget of its virtual node."""

    memory_gb: Amount = Field(
        description="Memory in GB (2**30 bytes), weights and caches included."
    )
    cpu: Amount = Field(description="CPU cores; fractions are allowed.")
    metal_cores: Amount = Field(default=0.0, description="GPU cores of an Apple chip.")
    neural_cores: Amount = Field(default=0.0, description="Neural Engine cores of an Apple chip.")


class Replicas(Strict):
    """How many replicas a deployment has, and when their number changes."""

    min: int = Field(default=1, ge=1, description="Replicas that are always there.")
    max: int = Field(
        default=1,
        ge=1,
        description="Replicas at full load; `max + surge` of them must fit the budget.",
    )
    target_ongoing_requests: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=12.0,
        description="Requests in progress per replica that the autoscaler steers towards.",
    )
    surge: int = Field(
        default=1,
        ge=1,
        description="Replicas that a rolling update may start beyond `max`.",
    )
    upscale_delay_s: Amount = Field(
        default=3.0, description="Seconds that the load must last before a replica is added."
    )
    downscale_delay_s: Amount = Field(
        default=60.0, description="Seconds that the load must be gone before a replica is stopped."
    )

    @model_validator(mode="after")
    def _max_is_not_below_min(self) -> Replicas:
        if self.max < self.min:
            raise ValueError(f"max ({self.max}) is below min ({self.min})")
        return self

    @property
    def peak(self) -> int:
        """The most replicas that exist at one time, a rolling update included."""
        return self.max + self.surge


class LanguageModel(Strict):
    """One language model, one deployment. Exactly one of `path` and `repository` is given."""

    model: Name = Field(
        description="The model's one name: its id over HTTP, its deployment, its metric label."
    )
    path: str | None = Field(
        default=None,
        min_length=1,
        description="Folder in mlx-lm's format; relative to the project's root, or absolute.",
    )
    repository: str | None = Field(
        default=None,
        pattern=r"^[\w.-]+/[\w.-]+$",
        description="Model repository, `owner/name`, instead of `path`; needs `revision`.",
    )
    revision: str | None = Field(
        default=None,
        description="The repository's commit, 40 hexadecimal digits: a branch could change.",
    )
    replicas: Replicas = Field(default=Replicas(), description="Number of engine replicas.")
    resources: Resources = Field(description="What one engine replica draws from the `ai` budget.")
    engine: dict[str, Any] = Field(
        default_factory=dict, description="Settings of the language engine; see below."
    )

    @model_validator(mode="after")
    def _one_pinned_source(self) -> LanguageModel:
        if (self.path is None) == (self.repository is None):
            raise ValueError("give either path, or repository with revision")
        if self.repository is not None and not _COMMIT.match(self.revision or ""):
            raise ValueError("repository needs revision, a commit of 40 hexadecimal digits")
        if self.path is not None and self.revision is not None:
            raise ValueError("revision belongs to repository, not to path")
        return self


class CellArgs(Strict):
    """The catalogue and memory guard of the cell: one replica, and one more during an update."""

    resources: Resources = Field(
        default=Resources(memory_gb=0.5, cpu=0.01),
        description="What the catalogue and memory guard draws from the `ai` budget.",
    )
    memory_budget_gb: dict[Literal["ai", "api", "data"], Amount] = Field(
        default_factory=dict,
        description="Memory that the guard allows a virtual node, where that is not the budget "
        "which Ray was started with.",
    )

    @property
    def replicas(self) -> Replicas:
        """Fixed: there is exactly one guard."""
        return Replicas(min=1, max=1, surge=1)


class AiArgs(Strict):
    """Arguments of the application `ai`."""

    cell: CellArgs = Field(default=CellArgs(), description="Catalogue and memory guard.")
    language: list[LanguageModel] = Field(min_length=1, description="The language models served.")

    @model_validator(mode="after")
    def _names_are_unique(self) -> AiArgs:
        names = [entry.model for entry in self.language]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"model given twice: {', '.join(repeated)}")
        if "cell" in names:
            raise ValueError("no model can be called cell: the catalogue's deployment is")
        return self


class Limits(Strict):
    """What the API refuses, and how long it waits."""

    max_body_mb: Annotated[float, Field(gt=0, le=64)] = Field(
        default=4.0, description="Largest request body in MB (2**20 bytes); over it: 413."
    )
    request_timeout_s: Seconds = Field(
        default=600.0, description="Longest time for one request, its stream included; then 504."
    )

    @property
    def max_body_bytes(self) -> int:
        """`max_body_mb` in bytes."""
        return int(self.max_body_mb * 2**20)


class Retention(Strict):
    """How long what the law does not bind is kept. Records are kept for 20 years regardless."""

    chats_days: Annotated[int, Field(ge=0, le=3650)] = Field(
        default=90, description="Days that the sealed text of a patient's chats is kept; 0: none."
    )
    audio_days: Annotated[int, Field(ge=0, le=3650)] = Field(
        default=7, description="Days that recorded speech is kept; 0: none."
    )
    face_templates_days: Annotated[int, Field(ge=0, le=3650)] = Field(
        default=365, description="Days after its last use that a face template is kept."
    )


class SignIn(Strict):
    """Sign-in, sessions and tokens."""

    issuer: str | None = Field(
        default=None,
        description="URL in the tokens' `iss`; the cell's own address unless given.",
    )
    access_token_s: Annotated[int, Field(ge=30, le=3600)] = Field(
        default=600, description="Seconds that an access token lasts."
    )
    session_idle_s: Annotated[int, Field(ge=60)] = Field(
        default=3600, description="Seconds without a refresh after which a session ends."
    )
    session_absolute_s: Annotated[int, Field(ge=300)] = Field(
        default=43200, description="Seconds after which a session ends whatever happens."
    )
    step_up_s: Annotated[int, Field(ge=30)] = Field(
        default=300, description="Seconds that a fresh sign-in permits sensitive acts."
    )
    lockout_attempts: Annotated[int, Field(ge=2)] = Field(
        default=5, description="Failed sign-ins of one account before it is locked for a while."
    )
    lockout_s: Annotated[int, Field(ge=1)] = Field(
        default=900, description="Seconds that an account stays locked."
    )
    address_attempts_per_minute: Annotated[int, Field(ge=1)] = Field(
        default=60, description="Sign-in attempts taken from one address in a minute."
    )
    relying_party_id: str = Field(
        default="localhost", description="WebAuthn relying party: the host in the browser's bar."
    )
    relying_party_origins: list[str] = Field(
        default_factory=list,
        description="Origins that passkeys are accepted from; the issuer unless given.",
    )
    openid_issuer: str | None = Field(
        default=None,
        description="A hospital's own OpenID Connect provider, whose tokens are taken instead.",
    )
    openid_audience: str | None = Field(
        default=None, description="The audience that the provider's tokens must name."
    )
    openid_role_claim: str = Field(
        default="roles", description="Claim of the provider's tokens that holds our role names."
    )


class OtherHosts(Strict):
    """How a cell meets the other hosts of its site. Nothing of it: a cell of its own."""

    host: HostName | None = Field(default=None, description="This host's name in the site.")
    peer: Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.-]+:[0-9]{1,5}$")] | None = Field(
        default=None,
        description="Base URL of the other cell, as this host reaches it: its own HAProxy, which "
        "adds the certificates.",
    )
    callers: list[HostName] = Field(
        default_factory=list,
        description="Hosts that may call `/internal/`, by the name in their certificates.",
    )
    copy_wait_s: Annotated[float, Field(gt=0, le=30)] = Field(
        default=3.0,
        description="Seconds that the other cell may take over a blob, and one more for every "
        "16 MB, before the blob is acknowledged as single.",
    )

    @model_validator(mode="after")
    def _a_peer_knows_who_calls(self) -> OtherHosts:
        if self.peer is not None and self.host is None:
            raise ValueError("peer needs host: the name that single blobs are marked with")
        return self


class AlertsArgs(Strict):
    """Critical alerts: who is called when, and by which limits a value raises one by itself."""

    severities: Annotated[list[Literal["critical", "high"]], Field(min_length=1)] = Field(
        default=["critical", "high"],
        description="Severities that can be raised here; in emergency `critical` alone.",
    )
    rules: str | None = Field(
        default=None,
        description="YAML file of the limits that raise an alert as an Observation is written; "
        "`configs/alert_rules.yaml` unless given.",
    )
    fresh_s: Seconds = Field(
        default=86400.0, description="Seconds after which a measured value raises nothing any more."
    )
    critical_s: Seconds = Field(
        default=120.0, description="Seconds until an unacknowledged critical alert calls others."
    )
    high_s: Seconds = Field(
        default=300.0, description="Seconds until an unacknowledged high alert calls others."
    )
    again_s: Seconds = Field(
        default=300.0, description="Seconds between further calls of an unacknowledged alert."
    )
    reminders: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=12, description="Calls that are repeated once everybody has been called."
    )
    max_streams: Annotated[int, Field(ge=1, le=4096)] = Field(
        default=256, description="Open alert streams of one API replica; over it: 503."
    )
    max_streams_per_person: Annotated[int, Field(ge=1, le=64)] = Field(
        default=4, description="Open alert streams of one account in one API replica; over it: 429."
    )

    def first_s(self, severity: Literal["critical", "high"]) -> float:
        """Seconds until an alert that nobody acknowledges calls others for the first time."""
        return self.critical_s if severity == "critical" else self.high_s


class EmergencyArgs(Strict):
    """The emergency service: who may use it, for how long, and where its copy comes from."""

    users: Annotated[int, Field(ge=1, le=50)] = Field(
        default=50, description="Enrolled users, and users at a time, at most."
    )
    lasts_s: Annotated[int, Field(ge=60)] = Field(
        default=43_200,
        description="Seconds after which an activation expires; `medrec emergency extend` adds as "
        "many.",
    )
    estimate_s: Annotated[int, Field(ge=60)] = Field(
        default=14_400, description="Seconds from the activation to the return that users are told."
    )
    copy_max_age_s: Seconds = Field(
        default=60.0, description="Age of the emergency copy that is promised."
    )
    source_dsn: str | None = Field(
        default=None,
        description="libpq connection string by which the emergency cell reaches the site's "
        "primary as `medrec_copy`; no copy is kept unless given. Its password is in a `passfile`.",
    )
    chat_max_tokens: Annotated[int, Field(ge=1)] = Field(
        default=256, description="Answer tokens of a chat in an emergency; more is refused."
    )
    chat_max_prompt_chars: Annotated[int, Field(ge=1)] = Field(
        default=8_000, description="Characters of a chat's messages in an emergency."
    )


class RecordsArgs(Strict):
    """Where records lie and by which rules. The applications `api` and `data` are given the same."""

    dsn: str | None = Field(
        default=None,
        description="libpq connection string of the application's role (`medrec_app`); the cell's "
        "own PostgreSQL unless given. Passwords belong in a `passfile`.",
    )
    owner_dsn: str | None = Field(
        default=None, description="The same for the owner's role, which migrates; only with `dsn`."
    )
    pool_connections: Annotated[int, Field(ge=2, le=64)] = Field(
        default=8, description="Database connections of one API replica."
    )
    deadline_s: Seconds = Field(
        default=10.0, description="Longest time for one request on records; then 504."
    )
    failover_wait_s: Seconds = Field(
        default=0.5,
        description="Longest time that a request on records waits for a database which is away; "
        "then 503. Where another takes over (Patroni): as long as that may take, 30, and "
        "`deadline_s` with it.",
    )
    organization: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,64}$")] = Field(
        default="hospital", description="Id of the Organization that operators act for."
    )
    demo: bool = Field(
        default=False,
        description="Whether the first start makes demo users and secrets. Never with patients.",
    )
    audit: bool = Field(
        default=True, description="Off only to measure what the audit costs, and only with `demo`."
    )
    secrets: str | None = Field(
        default=None,
        description="Folder of site key and signing key; the home's `secrets` unless given.",
    )
    blobs: str | None = Field(
        default=None, description="Folder of the blobs; the home's `blobs` unless given."
    )
    models: str | None = Field(
        default=None,
        description="Folder of the model store; the home's `models` unless given.",
    )
    max_upload_mb: Annotated[int, Field(ge=1, le=65536)] = Field(
        default=512, description="Largest blob in MB (2**20 bytes); over it: 413."
    )
    disk_reserve_gb: Amount = Field(
        default=2.0, description="Free disk space in GB below which uploads are refused (507)."
    )
    identifier_systems: dict[Literal["cpf", "cns"], str] = Field(
        default={
            "cpf": "http://rnds.saude.gov.br/fhir/r4/NamingSystem/cpf",
            "cns": "http://rnds.saude.gov.br/fhir/r4/NamingSystem/cns",
        },
        description="URIs whose identifiers are checked by digit as CPF or CNS.",
    )
    care_days: Annotated[int, Field(ge=0, le=3650)] = Field(
        default=30, description="Days after an encounter's end that its staff still has access."
    )
    break_glass_s: Annotated[int, Field(ge=60, le=86400)] = Field(
        default=3600, description="Seconds that a break-glass access lasts."
    )
    sign_in: SignIn = Field(default=SignIn(), description="Sign-in, sessions and tokens.")
    retention: Retention = Field(default=Retention(), description="Limits of storage.")
    others: OtherHosts = Field(default=OtherHosts(), description="The other hosts of the site.")
    alerts: AlertsArgs = Field(default=AlertsArgs(), description="Critical alerts.")
    mode: Literal["normal", "emergency"] = Field(
        default="normal",
        description="`emergency`: the reduced service of `deployments/edge/modes.py`, once activated.",
    )
    phase: Literal["mvp", "production"] = Field(
        default="mvp", description="`mvp`: no cloud at all; told by `/v1/mode`."
    )
    emergency: EmergencyArgs = Field(default=EmergencyArgs(), description="The emergency service.")

    @model_validator(mode="after")
    def _goes_together(self) -> RecordsArgs:
        if (self.dsn is None) != (self.owner_dsn is None):
            raise ValueError("dsn and owner_dsn are given together or not at all")
        if not self.audit and not self.demo:
            raise ValueError("audit can be off only with demo")
        if self.failover_wait_s > self.deadline_s:
            raise ValueError("failover_wait_s is longer than deadline_s: nobody could wait so long")
        return self


class DataArgs(Strict):
    """Arguments of the application `data`."""

    custodian: Resources = Field(
        default=Resources(memory_gb=0.4, cpu=0.05),
        description="What the custodian draws from the `data` budget: retention, the chain's "
        "continuous check, and what failed replicas left to be chained.",
    )
    abandoned_after_s: Seconds = Field(
        default=900.0,
        description="Seconds after which an AI request without an outcome is closed as "
        "interrupted; more than a minute above the API's `request_timeout_s`.",
    )
    records: RecordsArgs = Field(default=RecordsArgs(), description="As in `api`.")

    @property
    def replicas(self) -> Replicas:
        """Fixed: there is exactly one custodian."""
        return Replicas(min=1, max=1, surge=1)


class ApiArgs(Strict):
    """Arguments of the application `api`."""

    replicas: Replicas = Field(
        default=Replicas(min=2, max=2, target_ongoing_requests=100.0),
        description="Number of API replicas; each listens on a port of its own.",
    )
    resources: Resources = Field(
        default=Resources(memory_gb=0.5, cpu=0.1),
        description="What one API replica draws from the `api` budget.",
    )
    limits: Limits = Field(default=Limits(), description="Limits of a request.")
    records: RecordsArgs = Field(default=RecordsArgs(), description="Where the records lie.")
