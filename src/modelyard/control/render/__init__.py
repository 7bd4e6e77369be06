"""IR -> someone else's words. Pure."""
