"""The results table of runs, from their folders alone."""
