"""A Flower app for the tests of runout-node."""
