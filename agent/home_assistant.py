"""Home Assistant finds the assets by itself: MQTT discovery, one retained message an asset.

Device discovery, as Home Assistant has it since 2024.11: a device with its entities on
``<prefix>/device/<id>/config``. An empty message there takes the device away.
"""

import hashlib
import re
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, get_args

import msgspec

from contract import topics
from contract.report import Acknowledge, Verdict, VerdictWord

_BUTTONS = {
    "confirmed": ("Fault confirmed", "mdi:check-decagram"),
    "false_alarm": ("False alarm", "mdi:bell-off"),
    "not_found": ("No fault found", "mdi:magnify-close"),
}

_json = msgspec.json.Encoder()


def device_id(site: str, node: str, asset: str) -> str:
    """Return an asset's id: letters, digits, _ and - alone, and unlike that of any other.

    >>> device_id("north", "rpi-1", "pump 3/ä") == device_id("north", "rpi-1", "pump_3__")
    False
    """
    words = f"{site}_{node}_{asset}"
    digest = hashlib.sha256(f"{site}/{node}/{asset}".encode()).hexdigest()[:8]
    return f"runout_{re.sub(r'[^A-Za-z0-9_-]', '_', words)[:100]}_{digest}"


def config_topic(prefix: str, site: str, node: str, asset: str) -> str:
    """Return where an asset is announced."""
    return f"{prefix}/device/{device_id(site, node, asset)}/config"


def config(site: str, node: str, asset: str, asset_class: str) -> bytes:
    """Return an asset as Home Assistant takes it in: a device with sensors and buttons."""
    own = device_id(site, node, asset)
    health = topics.asset_topic(site, node, asset, topics.HEALTH)
    alert = topics.alert_state_topic(site, node, asset)
    components: dict[str, dict[str, Any]] = {
        "health": {
            "platform": "sensor",
            "name": "Health",
            "state_topic": health,
            "value_template": "{{ (value_json.health * 100) | round(1) "
            "if value_json.health is not none else none }}",
            "unit_of_measurement": "%",
            "state_class": "measurement",
            "icon": "mdi:heart-pulse",
        },
        "score": {
            "platform": "sensor",
            "name": "Score",
            "state_topic": health,
            "value_template": "{{ value_json.score }}",
            "state_class": "measurement",
            "icon": "mdi:gauge",
        },
        "rul": {
            "platform": "sensor",
            "name": "Remaining life",
            "state_topic": health,
            "value_template": "{{ value_json.rul_h }}",
            "device_class": "duration",
            "unit_of_measurement": "h",
            "state_class": "measurement",
        },
        "rul_low": {
            "platform": "sensor",
            "name": "Remaining life, at least",
            "state_topic": health,
            "value_template": "{{ value_json.rul_low_h }}",
            "device_class": "duration",
            "unit_of_measurement": "h",
            "state_class": "measurement",
        },
        "rul_high": {
            "platform": "sensor",
            "name": "Remaining life, at most",
            "state_topic": health,
            "value_template": "{{ value_json.rul_high_h }}",
            "device_class": "duration",
            "unit_of_measurement": "h",
            "state_class": "measurement",
        },
        "alert": {
            "platform": "sensor",
            "name": "Alert",
            "state_topic": alert,
            "value_template": "{{ value_json.now }}",
            "json_attributes_topic": alert,
            "icon": "mdi:bell",
        },
        "problem": {
            "platform": "binary_sensor",
            "name": "Problem",
            "device_class": "problem",
            "state_topic": alert,
            "value_template": "{{ 'ON' if value_json.now in "
            "['unacknowledged', 'acknowledged', 'latched'] else 'OFF' }}",
        },
        "acknowledge": {
            "platform": "button",
            "name": "Acknowledge",
            "command_topic": topics.asset_topic(site, node, asset, topics.COMMAND),
            "payload_press": _json.encode(Acknowledge()).decode(),
            "icon": "mdi:bell-check",
        },
    }
    for word in get_args(VerdictWord):
        name, icon = _BUTTONS[word]
        components[word] = {
            "platform": "button",
            "name": name,
            "command_topic": topics.asset_topic(site, node, asset, topics.VERDICT),
            "payload_press": _json.encode(Verdict(word)).decode(),
            "icon": icon,
        }
    for key, component in components.items():
        component["unique_id"] = f"{own}_{key}"
    return _json.encode(
        {
            "device": {
                "identifiers": [own],
                "name": asset,
                "manufacturer": "Runout",
                "model": asset_class,
                "suggested_area": site,
            },
            "origin": {"name": "Runout", "sw_version": _version()},
            "availability": [
                {
                    "topic": topics.status_topic(site, node),
                    "value_template": "{{ 'online' if value_json.online else 'offline' }}",
                }
            ],
            "qos": 1,
            "components": components,
        }
    )


@lru_cache(1)
def _version() -> str:
    try:
        return version("runout")
    except PackageNotFoundError:
        return "0"
