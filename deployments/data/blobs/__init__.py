"""Blobs: immutable content in sealed files named by the SHA-256 of what is stored."""

from deployments.data.blobs.store import BlobRef, Blobs, Draft, erase

__all__ = ["BlobRef", "Blobs", "Draft", "erase"]
