"""Modelyard runs machine-learning models as services, in any language, from one manifest."""
