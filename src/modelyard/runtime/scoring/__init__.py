"""Records through a model: what jobs and streams share."""
