"""The bodies and answers of sign-in as schemas, for reading them strictly and for `/openapi.json`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from deployments.data.principal import Role

Text = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00]+$")]


class Body(BaseModel):
    """A block of a request: exactly these fields, of exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Shape(BaseModel):
    """A block of an answer."""

    model_config = ConfigDict(extra="forbid")


class PasswordForm(BaseModel):
    """The form of `/v1/auth/token`; fields beyond these are ignored, as RFC 6749 wants."""

    grant_type: Literal["password", "refresh_token"]
    username: str | None = None
    password: str | None = None
    refresh_token: str | None = None
    scope: str | None = Field(default=None, description="Narrows what the token permits.")


class RefreshForm(BaseModel):
    """The form, or the JSON object, of `/v1/auth/refresh`."""

    refresh_token: str
    grant_type: Literal["refresh_token"] | None = None
    scope: str | None = Field(default=None, description="Narrows what the new token permits.")


class TokenAnswer(Shape):
    """RFC 6749, section 5.1."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int
    scope: str
    refresh_token: str | None = Field(default=None, description="Absent after a step-up.")


class OAuthError(Shape):
    """RFC 6749, section 5.2."""

    error: str
    error_description: str


class PasskeyAnswer(Body):
    """What a browser's `navigator.credentials` gave, as `PublicKeyCredential.toJSON()` writes it."""

    challenge_id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
    credential: dict[str, Any]


class PasskeySignIn(PasskeyAnswer):
    """A passkey's sign-in."""

    scope: str | None = Field(default=None, description="Narrows what the token permits.")


class PasskeyRegistration(PasskeyAnswer):
    """A new passkey and its owner's name for it."""

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f]+$")]


class StepUp(Body):
    """A fresh proof: the password, or a passkey's answer to a sign-in challenge."""

    password: Text | None = None
    passkey: PasskeyAnswer | None = None


class NewPassword(Body):
    """A new password of at least 15 characters."""

    new_password: Text


class ChallengeAnswer(Shape):
    """Options for `navigator.credentials`, and the id that goes back with its answer."""

    challenge_id: str
    options: dict[str, Any]


class PasskeyCard(Shape):
    """A registered passkey. Times are seconds since 1970."""

    id: str
    name: str
    created_at: float
    last_used_at: float | None


class PasskeyList(Shape):
    """The caller's passkeys."""

    passkeys: list[PasskeyCard]


class Me(Shape):
    """Who the caller is and what they may do."""

    id: str
    kind: Literal["account", "key", "operator"]
    username: str | None
    role: Role
    organization: str
    practitioner: str | None
    scopes: list[str]
    session: str | None
    methods: list[str]
    authenticated_at: float
    demo: bool


class Problem(Shape):
    """An error as RFC 9457 shapes it; `code` is for programs."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    param: str | None = None
