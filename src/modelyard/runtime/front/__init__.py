"""The inference server: HTTP, batching and metrics before any number of models.

`python -m modelyard.runtime.front` is what drivers start; `server.serve` is the same server as a function.
"""
