"""The embedded Kubernetes-compatible API server: store, schemas, HTTP."""
