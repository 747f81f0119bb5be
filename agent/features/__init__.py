"""Rolling features. ``window`` holds the rows and computes; the names are in ``contract.spec``."""
