"""The audit chain: who did what to which record, provable afterwards."""
