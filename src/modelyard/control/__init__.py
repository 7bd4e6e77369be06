"""Decides what must run and makes it so. Never touches a tensor."""
