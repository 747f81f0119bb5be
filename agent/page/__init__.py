"""The agent's own page, its metrics and its answer to "are you well?", over HTTP."""
