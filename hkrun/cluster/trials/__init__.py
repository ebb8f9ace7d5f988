"""Tasks as trials of Ray Tune: which starts next, on how many processes, and what becomes of it."""
