"""Runners of streams: records are read, scored and committed with the offset, partition by partition."""
