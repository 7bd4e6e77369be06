"""Jobs: score a data set, or run a program, and commit the results once."""
