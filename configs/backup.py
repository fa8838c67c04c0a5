"""The block `backup:` of a site file: where backups go, how often, and how long they are kept."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from configs.args import Strict


class BackupArgs(Strict):
    """Base backups, WAL, blobs, configs and keys, sealed, in a folder or a bucket."""

    to: str = Field(
        pattern=r"^(/|~/|(gs|s3)://[a-z0-9])",
        description="Folder, or bucket `gs://name` or `s3://name`; its credentials come from the "
        "environment.",
    )
    prefix: str = Field(
        default="medrec",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*(/[A-Za-z0-9][A-Za-z0-9_-]*)*$",
        description="Folder below `to` that everything is written in.",
    )
    endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Address of a bucket service that is not the cloud's own.",
    )
    keep_days: Annotated[int, Field(ge=1, le=3650)] = Field(
        default=35, description="Days that a moment can be restored; two base backups stay always."
    )
    wal_every_s: Annotated[int, Field(ge=1, le=120)] = Field(
        default=30, description="Seconds after which changes are in the backup at the latest."
    )
    base_at: str = Field(
        default="02:00",
        pattern=r"^([01]\d|2[0-3]):[0-5]\d$",
        description="Local time of the daily base backup.",
    )

    @model_validator(mode="after")
    def _endpoint_is_a_buckets(self) -> BackupArgs:
        if self.endpoint is not None and "://" not in self.to:
            raise ValueError("endpoint belongs to a bucket, not to a folder")
        return self
