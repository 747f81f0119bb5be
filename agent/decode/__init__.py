"""From bytes to readings, without any input or output of their own. One file a format."""
