"""How far the program of another container is, told from beside it."""
