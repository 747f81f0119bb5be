"""Models trained, chosen and made again: from the lives in a store, or from recorded files."""
