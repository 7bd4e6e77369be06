"""A small client-go: one client, reflectors with caches, a work queue, events."""
