"""Flower's entry points: message in, message out; the whole of what travels to the devices."""
