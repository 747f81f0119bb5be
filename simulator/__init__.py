"""Plays machines over MQTT: recordings as they are, and simulated plants whose truth is known."""
