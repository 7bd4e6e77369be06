"""Container images without a daemon, a base image or a registry."""
