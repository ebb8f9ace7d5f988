"""The process that joins Ray, and the cluster of this machine that it may start."""
