"""NATS JetStream (https://docs.nats.io, ADR-50): the only place that speaks it."""
