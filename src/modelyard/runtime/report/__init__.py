"""How a process tells what came of its work."""
