"""Critical alerts: raised by staff or by a rule, delivered, acknowledged, escalated, on record."""
