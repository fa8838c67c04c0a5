"""A hospital's OpenID Connect provider: the npm package oidc-provider, run by a wheel's node."""
