"""Values that every layer may use: no IO, no dependencies on other layers."""
