"""The only reconcile loop, and the Protocols behind which everything real hides."""
