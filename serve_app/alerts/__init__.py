"""Alerts over HTTP, and as a stream over WebSocket."""
