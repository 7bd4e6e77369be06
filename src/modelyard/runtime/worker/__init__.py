"""The process that runs a model in its own language and environment, and our end of it."""
