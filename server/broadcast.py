"""Releases on the broker: what is handed out, retained on a topic of its class, signed.

For devices outside the federation, which fetch them when they like (``federation.over_mqtt``).
"""

import queue
import ssl
from pathlib import Path

import msgspec
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from contract import npz, topics
from contract.errors import ContractError, RunoutError
from server.fleet.config import Mqtt
from server.registry import Registry, cohorts
from server.wave import on_the_way

TOLD = "broadcast.json"
"""In the state folder: which version of each class the broker holds."""
PATIENCE_S = 30.0


def publish(state: Path, broker: Mqtt, *, anew: bool = False) -> dict[str, int]:
    """Publish what is handed out and the broker does not hold yet; return what was, by class.

    Args:
        state: the server's folder.
        broker: to publish to.
        anew: also what it should hold already.

    Raises:
        RunoutError: the broker cannot be reached, or does not take it.
    """
    known = {} if anew else _told(state)
    news: dict[str, tuple[int, bytes]] = {}
    for name in cohorts(state):
        registry = Registry(state, name)
        version = registry.pointed()
        if version is None or known.get(name) == version:
            continue
        if on_the_way(registry.folder, version):
            continue  # for the devices of its waves alone, as yet
        try:
            news[name] = version, registry.get(version).to_bytes()
        except ContractError:
            continue  # it stays in the list with its problem
    if not news:
        return {}
    for name, (version, content) in news.items():
        retain(broker, {topics.release_topic(name): content})
        known[name] = version
        npz.write(state / TOLD, msgspec.json.encode(known))
    return {name: version for name, (version, _) in news.items()}


def retain(broker: Mqtt, messages: dict[str, bytes]) -> None:
    """Publish retained messages, by topic, and return once the broker has them all.

    Raises:
        RunoutError: the broker cannot be reached, or does not take one.
    """
    client = _connected(broker)
    try:
        for topic, content in messages.items():
            done = client.publish(topic, content, qos=1, retain=True)
            try:
                done.wait_for_publish(PATIENCE_S)
            except (RuntimeError, ValueError) as error:
                raise RunoutError(f"{topic}: the broker did not take it: {error}") from error
            if not done.is_published():
                raise RunoutError(
                    f"{topic}: the broker did not take {len(content):,} bytes within "
                    f"{PATIENCE_S:.0f} s: does it allow packets of that size?"
                )
    finally:
        client.disconnect()
        client.loop_stop()


def _told(state: Path) -> dict[str, int]:
    try:
        return msgspec.json.decode((state / TOLD).read_bytes(), type=dict[str, int])
    except (FileNotFoundError, msgspec.MsgspecError):
        return {}


def _connected(broker: Mqtt) -> paho.Client:
    client = paho.Client(CallbackAPIVersion.VERSION2)
    where = f"broker {broker.host}:{broker.port}"
    if broker.username:
        try:
            first = Path(broker.password_file).read_text(encoding="utf-8").partition("\n")[0]
        except OSError as error:
            raise RunoutError(
                f"mqtt.password_file: {broker.password_file} cannot be read ({error.strerror})"
            ) from error
        client.username_pw_set(broker.username, first.strip())
    if broker.tls is not None:
        client.tls_set(
            ca_certs=broker.tls.ca,
            certfile=broker.tls.certificate or None,
            keyfile=broker.tls.key or None,
            tls_version=ssl.PROTOCOL_TLS_CLIENT,
        )
    answers: queue.Queue[str] = queue.Queue()
    client.on_connect = lambda _c, _u, _f, code, _p: answers.put(
        str(code) if code.is_failure else ""
    )
    try:
        client.connect(broker.host, broker.port)
    except OSError as error:
        raise RunoutError(f"{where}: cannot be reached ({error})") from error
    client.loop_start()
    try:
        problem = answers.get(timeout=PATIENCE_S)
    except queue.Empty:
        problem = "it does not answer"
    if problem:
        client.loop_stop()
        raise RunoutError(f"{where}: {problem}")
    return client
