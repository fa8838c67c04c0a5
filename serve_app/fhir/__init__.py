"""FHIR R4 over HTTP, below /fhir: what records and audit hold, in FHIR's words and manners."""
