"""Programs for those who work on Modelyard."""
