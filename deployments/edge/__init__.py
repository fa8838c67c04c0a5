"""The edge: HAProxy, the fixed address in front of a cell."""
