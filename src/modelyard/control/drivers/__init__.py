"""Drivers run units and tasks: as processes of this machine, or in memory for tests. They speak IR only."""
