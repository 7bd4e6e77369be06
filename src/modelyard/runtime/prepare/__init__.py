"""Reading an artifact once: what it is, its digest, its signature, and a copy to serve from."""
