"""Sparkplug B 3.0: a host application that reads, an edge node that publishes; sans-IO.

Neither knows MQTT or a clock: who calls them brings topics, payloads and the time, and publishes
what they return.
"""
