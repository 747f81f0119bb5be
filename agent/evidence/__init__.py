"""What an alert can be recomputed from, kept when it is raised, and the recomputation itself."""
