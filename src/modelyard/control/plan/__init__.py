"""Pure decisions: what must exist, given what was declared and what was seen. Time is an argument."""
