"""Speed and accuracy, shown: each prints a table for people and, last, one JSON object."""
