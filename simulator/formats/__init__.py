"""Payload formats: what becomes of a plant's messages before a sink sends them. One file a format.

All give the rows of one machine in one message, ``batch`` of them where the format holds several;
waveform bursts and life events have forms of their own, and go through as they are, in their place.
"""

from collections.abc import Callable, Iterable, Iterator

from simulator.formats.batches import Pack, packed
from simulator.formats.cobs import cobs
from simulator.formats.csv import csv, lines
from simulator.formats.json import array, columns, named
from simulator.formats.senml import cbor, json
from simulator.formats.sparkplug import Sparkplug
from simulator.message import Message

Encode = Callable[[Iterable[Message]], Iterator[Message]]

MQTT_FORMATS: dict[str, Pack | None] = {
    "json": None,
    "json-array": array,
    "json-columns": columns,
    "senml-json": json,
    "senml-cbor": cbor,
    "csv": csv,
    "sparkplug": None,
}
"""Over MQTT; None: as the messages are, or with a state of its own."""
SERIAL_FORMATS: dict[str, Pack] = {"csv": lines, "json": named, "cobs": cobs}
"""Over a serial line."""

__all__ = ["MQTT_FORMATS", "SERIAL_FORMATS", "Encode", "Pack", "Sparkplug", "packed"]
