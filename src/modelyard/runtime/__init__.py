"""Runs models in processes of its own. Knows nothing of kinds, plans or Kubernetes."""
