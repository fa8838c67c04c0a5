"""The data virtual node: records, accounts, the audit chain, and what keeps them in order."""
