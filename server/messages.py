"""Flower messages in our terms and back: a head of JSON words, arrays as arrays.

Used on both ends of the wire, by the ServerApp and by the ClientApp.
"""

from typing import cast

import msgspec
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from contract.arrays import Arrays
from contract.errors import ContractError
from contract.update import Readiness, Request, Update, UpdateHead

TRAIN = "train"
EVALUATE = "evaluate"
DEPLOY = "query.deploy"
STATUS = "query.status"

REFUSED = 100
"""Code of an error reply from a node that must not use what it was sent; Flower's own end at 8."""


def to_record(arrays: Arrays) -> ArrayRecord:
    """Return arrays as Flower carries them."""
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})


def from_record(record: ArrayRecord) -> Arrays:
    """Read arrays back; raises ``ContractError`` on what is no plain array."""
    arrays: Arrays = {}
    for name, array in record.items():
        try:
            arrays[name] = array.numpy()
        except (TypeError, ValueError, EOFError, OSError) as error:
            raise ContractError(f"array {name} cannot be read ({error})") from error
    return arrays


def _arrays_of(content: RecordDict) -> Arrays:
    records = list(content.array_records.values())
    if len(records) != 1:
        raise ContractError(f"{len(records)} records of arrays in place of one")
    return from_record(records[0])


def text_of(content: RecordDict, record: str, key: str) -> str:
    """Return a word from a record of words; raises ``ContractError`` where there is none."""
    value = content.config_records.get(record, ConfigRecord()).get(key)
    if not isinstance(value, str):
        raise ContractError(f"the message holds no {key!r}")
    return value


def request_content(request: Request, arrays: Arrays) -> RecordDict:
    """Return what the server asks, and the arrays to start from."""
    head = ConfigRecord({"request": msgspec.json.encode(request).decode()})
    return RecordDict({"request": head, "arrays": to_record(arrays)})


def read_request(content: RecordDict) -> tuple[Request, Arrays]:
    """Read a request; raises ``ContractError`` if it is none of this contract."""
    try:
        request = msgspec.json.decode(text_of(content, "request", "request"), type=Request)
    except msgspec.MsgspecError as error:
        raise ContractError(f"the request cannot be read ({error})") from error
    return request, _arrays_of(content)


def update_content(update: Update) -> RecordDict:
    """Return what a node answers."""
    head = update.head
    metrics: dict[str, int | float | list[int] | list[float]] = {**head.metrics}
    metrics["num-examples"] = head.rows
    return RecordDict(
        {
            "head": ConfigRecord({"head": msgspec.json.encode(head).decode()}),
            "arrays": to_record(update.arrays),
            "metrics": MetricRecord(metrics),
        }
    )


def read_update(content: RecordDict) -> Update:
    """Read an answer; raises ``ContractError`` if it is none of this contract."""
    try:
        head = msgspec.json.decode(text_of(content, "head", "head"), type=UpdateHead)
    except msgspec.MsgspecError as error:
        raise ContractError(f"the head of the update cannot be read ({error})") from error
    return Update(head, _arrays_of(content))


def release_content(release: bytes) -> RecordDict:
    """Return a release on its way to the nodes."""
    return RecordDict({"release": to_record({"release": np.frombuffer(release, dtype=np.uint8)})})


def read_release(content: RecordDict) -> bytes:
    """Read the bytes of a release; raises ``ContractError`` where there are none."""
    arrays = _arrays_of(content)
    if "release" not in arrays:
        raise ContractError("the message holds no release")
    return arrays["release"].tobytes()


def delivered_content(said: str) -> RecordDict:
    """Return what a node says of a release it was handed."""
    return RecordDict({"delivered": ConfigRecord({"delivered": said})})


def readiness_content(found: Readiness) -> RecordDict:
    """Return what a node answers when asked for its readiness."""
    return RecordDict({"status": ConfigRecord({"status": msgspec.json.encode(found).decode()})})


def read_readiness(content: RecordDict) -> Readiness:
    """Read such an answer; raises ``ContractError`` if it is none of this contract."""
    try:
        return msgspec.json.decode(text_of(content, "status", "status"), type=Readiness)
    except msgspec.MsgspecError as error:
        raise ContractError(f"the status cannot be read ({error})") from error


def size_of(content: RecordDict) -> int:
    """Return the bytes of the records in a message."""
    records = cast("list[ArrayRecord | ConfigRecord | MetricRecord]", list(content.values()))
    return sum(record.count_bytes() for record in records)
