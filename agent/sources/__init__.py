"""Where readings come from, other than MQTT: each a configuration that builds itself."""

from agent.sources.http import Http
from agent.sources.modbus import Modbus
from agent.sources.serial import Serial
from agent.sources.source import Source, SourceCounts

SourceConfig = Serial | Modbus | Http

__all__ = ["Http", "Modbus", "Serial", "Source", "SourceConfig", "SourceCounts"]
