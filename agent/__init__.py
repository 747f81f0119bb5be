"""The device's side: read, clean, learn, judge, warn; and answer the fleet's server."""
