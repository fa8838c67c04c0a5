"""`/v1/chat/completions`: its schema, its way to the engine, and its two kinds of answer."""
