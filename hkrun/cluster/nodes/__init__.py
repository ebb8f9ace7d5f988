"""What nodes have, which of them answer, and whether they can do the work."""
