"""What device and server call alike, before people."""

WAVES = {
    "std": "standard deviation",
    "min": "minimum",
    "max": "maximum",
    "crest": "crest factor",
    "centroid": "spectral centroid",
    "velocity_rms": "velocity, 10 to 1000 Hz,",
    "zone": "severity zone",
    "envelope_rms": "envelope",
    "bpfo": "outer-race bearing line",
    "bpfi": "inner-race bearing line",
    "bsf": "rolling-element bearing line",
    "ftf": "cage bearing line",
}
"""Features of a burst, where the name alone would not say it."""
