"""What the hosts of a site say to each other, below `/internal/`."""
