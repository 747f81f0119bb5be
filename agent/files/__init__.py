"""Files of recorded readings: what they look like, how they are read, what is true of them."""
