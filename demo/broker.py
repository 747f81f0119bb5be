"""A broker for the demo, on loopback and a free port: mosquitto, else the embedded iotcore."""

import logging
import shutil
import signal
import sys
from pathlib import Path

MOSQUITTO = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence false
set_tcp_nodelay true
# A client that acknowledges by the batch starves at the default of 20.
max_inflight_messages 1000
max_queued_messages 0
"""


# Small segments: the embedded broker keeps what passed in memory, 100 MB a topic by default.
IOTCORE = """\
id = 0

[router]
id = 0
max_connections = 100
max_outgoing_packet_count = 1000
max_segment_size = 1048576
max_segment_count = 4

[v4.1]
name = "loopback"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1

[v4.1.connections]
connection_timeout_ms = 60000
max_payload_size = 1048576
max_inflight_count = 1000
dynamic_filters = true
"""


def mosquitto() -> str | None:
    """Return where mosquitto is; Debian puts it where only root's PATH looks."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def command(port: int, folder: Path, program: str | None) -> list[str]:
    """Return the command that runs a broker on a port; its files go into ``folder``.

    ``program`` is mosquitto's, or None for the embedded broker.
    """
    name, content = ("mosquitto.conf", MOSQUITTO) if program else ("iotcore.toml", IOTCORE)
    config = folder / name
    config.write_text(content.format(port=port), encoding="utf-8")
    if program is None:
        return [sys.executable, "-m", "demo.broker", str(config)]
    return [program, "-c", str(config)]


def main() -> int:
    """Run the embedded broker until the process is ended."""
    from iotcore.iotcore import IotCoreBroker  # noqa: PLC0415  # an extra: not where mosquitto is

    # It reports each packet as an error, by mistake.
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    IotCoreBroker(config_path=sys.argv[1]).run_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
