"""Pure numpy models: arrays, merge, withdraw, solve, score. One file a family."""
