"""Gateways: Envoy and its memory twin."""
