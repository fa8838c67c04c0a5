"""Accounts, sessions, passkeys and API keys: who somebody is, and what says so."""
