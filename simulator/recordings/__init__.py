"""Public recordings of machines, read in their original formats."""
