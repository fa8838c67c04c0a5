"""The processes of one cell, Ray, Serve applications and HAProxy: how they start, live and end."""
