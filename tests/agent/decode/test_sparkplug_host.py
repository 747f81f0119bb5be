"""The host application; assertions of the Sparkplug 3.0 specification by their ids."""

import json
import math
from typing import Any

import numpy as np
import pytest

from agent.block import Block, Burst
from agent.sparkplug.history import MOST_KEPT
from agent.sparkplug.host import MOST_NODES, Host
from agent.sparkplug.metric import ARRAYS
from agent.sparkplug.schema import COMPRESSED, REBIRTH, DataType, Message, Payload
from agent.sparkplug.session import MOST_HELD, MOST_METRICS, Gone, Heard
from contract.errors import DecodeError

MS = 1_767_225_600_000
AT_NS = (MS + 500) * 10**6
SECOND_NS = 10**9
MINUTE_NS = 60 * SECOND_NS


def payload(seq: int | None, *metrics: dict[str, Any], ms: int = MS, **fields: Any) -> bytes:
    """Build a payload; ``unit``, ``quality`` and ``rate`` of a metric become properties."""
    message = Payload(timestamp=ms, **fields)
    if seq is not None:
        message.seq = seq
    for given in metrics:
        plain = {k: v for k, v in given.items() if k not in {"unit", "quality", "rate"}}
        metric = message.metrics.add(**plain)
        if "unit" in given:
            metric.properties.keys.append("engUnit")
            metric.properties.values.add(type=DataType.String, string_value=given["unit"])
        if "quality" in given:
            metric.properties.keys.append("Quality")
            metric.properties.values.add(type=DataType.Int32, int_value=given["quality"])
        if "rate" in given:
            metric.properties.keys.append("sampleRate")
            metric.properties.values.add(type=DataType.Double, double_value=given["rate"])
    data: bytes = message.SerializeToString()
    return data


def bd_seq(number: int = 0) -> dict[str, Any]:
    return {"name": "bdSeq", "datatype": DataType.Int64, "long_value": number}


FLOW = {
    "name": "Process/Flow", "alias": 1, "datatype": DataType.Double, "double_value": 1.5,
    "unit": "l/s",
}  # fmt: skip
SPEED = {"name": "Speed", "alias": 2, "datatype": DataType.Int32, "int_value": 1480}


class Plant:
    """A host application, and the messages of one node."""

    def __init__(self, **options: Any) -> None:
        self.host = Host("scada", ("plant",), **options)

    def tell(self, verb: str, data: bytes, device: str = "", at_ns: int = AT_NS) -> Heard:
        end = f"/{device}" if device else ""
        return self.host.receive(f"spBv1.0/plant/{verb}/hall{end}", data, at_ns)

    def born(self, *metrics: dict[str, Any], number: int = 0, seq: int = 0, **how: Any) -> Heard:
        return self.tell("NBIRTH", payload(seq, bd_seq(number), *metrics), **how)

    def refuses(self, verb: str, data: bytes, device: str = "") -> str:
        with pytest.raises(DecodeError) as caught:
            self.tell(verb, data, device)
        return caught.value.reason


def a_plant(**options: Any) -> Plant:
    """Return a plant whose node and device were born, with seq 0 and 1."""
    plant = Plant(**options)
    plant.born()
    plant.tell("DBIRTH", payload(1, FLOW, SPEED), "pump")
    return plant


def flow(seq: int, value: float, **how: Any) -> bytes:
    return payload(seq, {"alias": 1, "double_value": value}, **how)


def values(heard: Heard) -> list[float]:
    return [v for block in heard.readings if isinstance(block, Block) for v in block.values.ravel()]


def is_rebirth(message: Message) -> bool:
    (metric,) = Payload.FromString(message.payload).metrics
    return bool(metric.name == REBIRTH and metric.boolean_value)


def test_the_state_says_online_and_the_time_of_the_connection() -> None:
    """tck-id-host-topic-phid-birth-topic tck-id-host-topic-phid-birth-payload
    tck-id-host-topic-phid-birth-payload-timestamp tck-id-host-topic-phid-birth-qos
    tck-id-host-topic-phid-birth-retain tck-id-host-topic-phid-death-topic
    tck-id-host-topic-phid-death-payload tck-id-host-topic-phid-death-payload-timestamp-connect
    tck-id-host-topic-phid-death-qos tck-id-host-topic-phid-death-retain
    tck-id-operational-behavior-host-application-connect-will-topic
    tck-id-operational-behavior-host-application-connect-will-payload
    tck-id-operational-behavior-host-application-connect-will-qos
    tck-id-operational-behavior-host-application-connect-will-retained
    tck-id-operational-behavior-host-application-connect-birth-topic
    tck-id-operational-behavior-host-application-connect-birth-payload
    tck-id-operational-behavior-host-application-connect-birth-qos
    tck-id-operational-behavior-host-application-connect-birth-retained
    tck-id-message-flow-phid-sparkplug-state-publish-payload
    tck-id-message-flow-phid-sparkplug-state-publish-payload-timestamp
    tck-id-payloads-state-will-message-qos tck-id-payloads-state-will-message-retain
    tck-id-payloads-state-will-message-payload tck-id-payloads-state-birth-payload
    """
    host = Host("scada")
    will, birth = host.will(AT_NS), host.birth()
    assert will[::2] == birth[::2] == ("spBv1.0/STATE/scada", 1)
    assert will.retain
    assert birth.retain
    assert json.loads(will.payload) == {"online": False, "timestamp": MS + 500}
    assert json.loads(birth.payload) == {"online": True, "timestamp": MS + 500}


def test_the_death_says_when_the_connection_was_closed() -> None:
    """tck-id-host-topic-phid-death-payload-timestamp-disconnect-clean
    tck-id-operational-behavior-host-application-death-topic
    tck-id-operational-behavior-host-application-death-payload
    tck-id-operational-behavior-host-application-death-qos
    tck-id-operational-behavior-host-application-death-retained
    """
    host = Host("scada")
    host.will(AT_NS)
    host.birth()
    death = host.death(AT_NS + SECOND_NS)
    assert json.loads(death.payload) == {"online": False, "timestamp": MS + 1500}
    assert (death.topic, death.qos, death.retain) == ("spBv1.0/STATE/scada", 1, True)


def test_the_host_listens_to_itself_and_to_its_groups() -> None:
    """tck-id-host-topic-phid-birth-sub-required tck-id-message-flow-phid-sparkplug-subscription
    tck-id-payloads-state-subscribe
    """
    filters = Host("scada", ("a", "b")).subscriptions()
    assert filters[0] == "spBv1.0/STATE/scada"
    for group in "ab":
        for verb in ("BIRTH", "DATA", "DEATH"):
            assert f"spBv1.0/{group}/N{verb}/+" in filters
            assert f"spBv1.0/{group}/D{verb}/+/+" in filters
    assert "spBv1.0/+/NBIRTH/+" in Host("scada").subscriptions()


def test_the_host_contradicts_who_says_it_is_gone() -> None:
    """tck-id-message-flow-hid-sparkplug-state-message-delivered"""
    host = Host("scada")
    will = host.will(AT_NS)
    assert host.receive(will.topic, will.payload, AT_NS).say == []
    birth = host.birth()
    assert host.receive(will.topic, will.payload, AT_NS).say == [birth]
    assert host.receive(birth.topic, birth.payload, AT_NS).say == []
    death = host.death(AT_NS)
    assert host.receive(death.topic, death.payload, AT_NS).say == []


def test_births_tell_values_and_what_aliases_stand_for() -> None:
    plant = Plant()
    plant.born()
    (born,) = plant.tell("DBIRTH", payload(1, FLOW, SPEED), "pump").readings
    assert isinstance(born, Block)
    assert born.asset == "pump"
    assert born.channels == ("Process.Flow", "Speed")
    assert born.units == ("l/s", "")
    assert born.values.tolist() == [[1.5, 1480]]
    assert born.t_ns.tolist() == [MS * 10**6]
    data = payload(2, {"alias": 2, "int_value": 1490, "timestamp": MS + 7})
    (block,) = plant.tell("DDATA", data, "pump").readings
    assert isinstance(block, Block)
    assert (block.channels, block.values.tolist()) == (("Speed",), [[1490]])
    assert block.t_ns.tolist() == [(MS + 7) * 10**6]


def test_data_may_bear_names_in_place_of_aliases() -> None:
    data = payload(2, {"name": "Process/Flow", "double_value": 2.0})
    assert values(a_plant().tell("DDATA", data, "pump")) == [2.0]


def test_a_node_has_metrics_of_its_own_and_its_controls_are_no_readings() -> None:
    heard = Plant().born(
        {"name": REBIRTH, "datatype": DataType.Boolean, "boolean_value": False}, SPEED
    )
    (block,) = heard.readings
    assert isinstance(block, Block)
    assert (block.asset, block.channels) == ("hall", ("Speed",))
    assert heard.left_out == 0


@pytest.mark.parametrize(
    ("asset", "device", "node"),
    [
        ("{device}", "pump", "hall"),
        ("{node}.{device}", "hall.pump", "hall.hall"),
        ("{group}-{node}-{device}", "plant-hall-pump", "plant-hall-hall"),
    ],
)
def test_an_asset_is_named_as_configured(asset: str, device: str, node: str) -> None:
    plant = Plant(asset=asset)
    (of_node,) = plant.born(SPEED).readings
    (of_device,) = plant.tell("DBIRTH", payload(1, SPEED), "pump").readings
    assert (of_node[0], of_device[0]) == (node, device)


@pytest.mark.parametrize("asset", ["{device}/{node}", "{pump}", "{0}", "", "{device.x}", "{"])
def test_an_asset_name_that_cannot_be_is_refused(asset: str) -> None:
    with pytest.raises(ValueError, match="is not made of"):
        Host("scada", asset=asset)


def test_two_devices_that_would_become_one_asset_are_refused() -> None:
    """tck-id-topic-structure-namespace-duplicate-device-id-across-edge-node"""
    host = a_plant().host
    host.receive("spBv1.0/plant/NBIRTH/yard", payload(0, bd_seq()), AT_NS)
    with pytest.raises(DecodeError, match="'pump' is plant/hall/pump, too"):
        host.receive("spBv1.0/plant/DBIRTH/yard/pump", payload(1, FLOW), AT_NS)


@pytest.mark.parametrize(
    ("datatype", "fields", "value"),
    [
        (DataType.Int8, {"int_value": 2**32 - 5}, -5),
        (DataType.Int8, {"int_value": 251}, -5),
        (DataType.Int8, {"int_value": 127}, 127),
        (DataType.Int16, {"int_value": 2**32 - 32768}, -32768),
        (DataType.Int32, {"int_value": 4_294_967_291}, -5),
        (DataType.Int32, {"long_value": 2**64 - 5}, -5),
        (DataType.Int64, {"long_value": 2**64 - 5}, -5),
        (DataType.Int64, {"long_value": 2**40}, 2**40),
        (DataType.UInt8, {"int_value": 255}, 255),
        (DataType.UInt16, {"int_value": 65535}, 65535),
        (DataType.UInt32, {"int_value": 4_294_967_291}, 4_294_967_291),
        (DataType.UInt32, {"long_value": 4_294_967_291}, 4_294_967_291),
        (DataType.UInt64, {"long_value": 2**64 - 2**11}, 2**64 - 2**11),
        (DataType.Float, {"float_value": 0.5}, 0.5),
        (DataType.Double, {"double_value": 0.1}, 0.1),
        (DataType.Boolean, {"boolean_value": True}, 1),
    ],
)
def test_a_value_means_what_its_datatype_says(
    datatype: DataType, fields: dict[str, Any], value: float
) -> None:
    plant = Plant()
    heard = plant.born({"name": "x", "alias": 9, "datatype": datatype, **fields})
    assert values(heard) == [value]
    assert values(plant.tell("NDATA", payload(1, {"alias": 9, **fields}))) == [value]


@pytest.mark.parametrize(
    ("datatype", "fields"),
    [
        (DataType.Int8, {"int_value": 300}),
        (DataType.Int16, {"int_value": 70_000}),
        (DataType.UInt8, {"int_value": 256}),
        (DataType.Int32, {"long_value": 2**40}),
        (DataType.Double, {"string_value": "1.5"}),
        (DataType.Int32, {"bytes_value": b"1"}),
    ],
)
def test_a_value_that_its_datatype_cannot_have_is_refused(
    datatype: DataType, fields: dict[str, Any]
) -> None:
    data = payload(0, bd_seq(), {"name": "x", "datatype": datatype, **fields})
    assert Plant().refuses("NBIRTH", data) == "value"


def test_what_is_no_number_is_left_out_and_counted() -> None:
    heard = Plant().born(
        {"name": "s", "datatype": DataType.String, "string_value": "on"},
        {"name": "d", "datatype": DataType.DateTime, "long_value": MS},
        {"name": "f", "datatype": DataType.FloatArray, "bytes_value": b"\0" * 8},
        {"name": "?", "datatype": 99, "int_value": 1},
        SPEED,
    )
    assert values(heard) == [1480]
    assert heard.left_out == 4


def test_null_and_bad_and_stale_values_are_missing() -> None:
    heard = Plant().born(
        {"name": "null", "datatype": DataType.Double, "is_null": True},
        {"name": "none", "datatype": DataType.Double},
        {"name": "bad", "datatype": DataType.Double, "double_value": 1.0, "quality": 0},
        {"name": "stale", "datatype": DataType.Double, "double_value": 1.0, "quality": 500},
        {"name": "good", "datatype": DataType.Double, "double_value": 1.0, "quality": 192},
    )
    (block,) = heard.readings
    assert isinstance(block, Block)
    assert np.isnan(block.values[0]).tolist() == [True, True, True, True, False]


def test_historical_values_are_a_block_of_their_own() -> None:
    old = {"alias": 1, "double_value": 0.5, "timestamp": MS - 9000, "is_historical": True}
    heard = a_plant().tell("DDATA", payload(2, old, {"alias": 1, "double_value": 3.0}), "pump")
    assert [b[5] for b in heard.readings if isinstance(b, Block)] == [True, False]
    assert values(heard) == [0.5, 3.0]


def test_many_values_of_a_metric_are_one_block() -> None:
    metrics = [{"alias": 1, "double_value": float(i), "timestamp": MS + i} for i in range(100)]
    (block,) = a_plant().tell("DDATA", payload(2, *metrics), "pump").readings
    assert isinstance(block, Block)
    assert block.values.shape == (100, 1)


def test_metrics_of_many_times_make_no_large_and_empty_block() -> None:
    metrics = [
        {"name": f"m{i}", "datatype": DataType.Double, "double_value": 1.0, "timestamp": MS + i}
        for i in range(1000)
    ]
    heard = Plant().born(*metrics)
    assert len(values(heard)) == 1000


def test_a_value_without_a_time_has_that_of_its_message_or_its_arrival() -> None:
    plant = a_plant()
    for seq, ms, t_ns in ((2, MS + 3, (MS + 3) * 10**6), (3, 0, AT_NS)):
        (block,) = plant.tell("DDATA", flow(seq, 1.0, ms=ms), "pump").readings
        assert isinstance(block, Block)
        assert block.t_ns.tolist() == [t_ns]


@pytest.mark.parametrize(("datatype", "element"), list(ARRAYS.items()))
def test_an_array_with_a_sample_rate_is_a_waveform(datatype: DataType, element: str) -> None:
    plant = Plant()
    samples = np.arange(64).astype(element)
    born = {
        "name": "accel", "alias": 1, "datatype": datatype, "is_null": True,
        "unit": "g", "rate": 25_600.0,
    }  # fmt: skip
    assert plant.born(born).readings == []
    (burst,) = plant.tell(
        "NDATA", payload(1, {"alias": 1, "bytes_value": samples.tobytes()})
    ).readings
    assert isinstance(burst, Burst)
    assert burst[:5] == ("hall", "accel", MS * 10**6, 25_600.0, "g")
    assert burst.samples.dtype == np.float32
    assert burst.samples.tolist() == list(range(64))


@pytest.mark.parametrize(
    ("data", "rate"), [(b"\0" * 7, 10.0), (b"", 10.0), (b"\0" * 8, -1.0), (b"\0" * 8, math.inf)]
)
def test_an_array_that_cannot_be_is_refused(data: bytes, rate: float) -> None:
    born = {"name": "a", "datatype": DataType.FloatArray, "bytes_value": data, "rate": rate}
    assert Plant().refuses("NBIRTH", payload(0, bd_seq(), born)) == "value"


def test_the_death_of_a_node_takes_its_devices_with_it() -> None:
    """tck-id-operational-behavior-edge-node-termination-host-action-ndeath-node-offline
    tck-id-operational-behavior-edge-node-termination-host-action-ndeath-node-tags-stale
    tck-id-operational-behavior-edge-node-termination-host-action-ndeath-devices-offline
    tck-id-operational-behavior-edge-node-termination-host-action-ndeath-devices-tags-stale
    """
    plant = a_plant()
    heard = plant.tell("NDEATH", payload(None, bd_seq(), ms=MS - 10**6))
    assert sorted(heard.gone) == [Gone("hall", AT_NS), Gone("pump", AT_NS)]
    assert plant.tell("NDEATH", payload(None, bd_seq())).gone == []
    (ask,) = plant.tell("DDATA", flow(2, 1.0), "pump").say
    assert is_rebirth(ask)


def test_a_will_of_an_earlier_connection_is_of_no_account() -> None:
    """tck-id-payloads-ndeath-bdseq"""
    plant = Plant()
    plant.born(number=7)
    assert plant.tell("NDEATH", payload(None, bd_seq(6))).gone == []
    assert plant.tell("NDEATH", payload(None, bd_seq(7))).gone == [Gone("hall", AT_NS)]


def test_the_death_of_a_device_counts_from_when_the_node_says() -> None:
    """tck-id-operational-behavior-edge-node-termination-host-action-ddeath-devices-offline"""
    plant = a_plant()
    assert plant.tell("DDEATH", payload(2, ms=MS + 9), "pump").gone == [
        Gone("pump", (MS + 9) * 10**6)
    ]
    assert plant.tell("DDEATH", payload(3), "pump").gone == []
    assert [is_rebirth(m) for m in plant.tell("DDATA", flow(4, 1.0), "pump").say] == [True]


def test_a_new_life_of_a_node_forgets_its_devices() -> None:
    plant = a_plant()
    assert plant.born(number=1).gone == [Gone("pump", AT_NS)]
    again = a_plant()
    assert again.born(number=0).gone == []  # a rebirth: the devices follow


def test_when_the_connection_is_lost_everything_is_stale() -> None:
    plant = a_plant()
    assert sorted(plant.host.lost(AT_NS).gone) == [Gone("hall", AT_NS), Gone("pump", AT_NS)]
    assert plant.tell("DDATA", flow(2, 1.0), "pump").readings == []


def old(seconds: int, value: float) -> dict[str, Any]:
    return {
        "alias": 1,
        "double_value": value,
        "timestamp": MS - 3_600_000 + 1000 * seconds,
        "is_historical": True,
    }


def test_what_was_stored_is_read_before_what_is_new_though_it_comes_behind() -> None:
    plant = Plant(history_s=2)
    plant.born()
    assert values(plant.tell("DBIRTH", payload(1, FLOW, SPEED), "pump")) == []
    assert values(plant.tell("DDATA", payload(2, old(2, 12.0), old(1, 11.0)), "pump")) == []
    assert values(plant.tell("DDATA", flow(3, 3.0, ms=MS + 9), "pump")) == []
    later = AT_NS + SECOND_NS
    assert values(plant.tell("DDATA", payload(4, old(3, 13.0)), "pump", later)) == []
    # The last of the past came a second after the birth: two more are waited for more of it.
    assert values(plant.host.tick(AT_NS + 2 * SECOND_NS)) == []
    heard = plant.host.tick(AT_NS + 3 * SECOND_NS)
    found = [
        (int(t), value)
        for block in heard.readings
        if isinstance(block, Block) and "Process.Flow" in block.channels
        for t, value in zip(block.t_ns, block.values[:, 0].tolist(), strict=True)
    ]
    assert [value for _, value in found] == [11.0, 12.0, 13.0, 1.5, 3.0]
    assert found == sorted(found)
    assert values(plant.tell("DDATA", flow(5, 5.0), "pump", later)) == [5.0]


def test_what_is_held_for_the_past_is_read_before_a_death_and_before_leaving() -> None:
    plant = Plant(history_s=2)
    plant.born()
    plant.tell("DBIRTH", payload(1, FLOW), "pump")
    dead = plant.tell("DDEATH", payload(2, ms=MS + 9), "pump")
    assert (values(dead), dead.gone) == ([1.5], [Gone("pump", (MS + 9) * 10**6)])
    plant.tell("DBIRTH", payload(3, FLOW), "pump")
    assert values(plant.host.flush()) == [1.5]
    assert values(plant.host.flush()) == []
    plant.tell("DBIRTH", payload(4, SPEED), "fan")
    assert values(plant.host.lost(AT_NS)) == [1480]


def test_a_rebirth_that_was_asked_for_holds_nothing() -> None:
    plant = Plant(history_s=2)
    plant.born(SPEED)
    plant.tell("DBIRTH", payload(1, FLOW), "pump")
    plant.host.flush()
    assert values(plant.born(SPEED)) == [1480]
    assert values(plant.tell("DBIRTH", payload(1, FLOW), "pump")) == [1.5]
    assert values(plant.tell("DBIRTH", payload(2, FLOW), "fan")) == []  # a device that is new


@pytest.mark.parametrize("historical", [True, False])
def test_what_is_held_for_the_past_is_bounded(historical: bool) -> None:
    plant = Plant(history_s=60)
    plant.born()
    plant.tell("DBIRTH", payload(1, FLOW), "pump")
    seen = []
    for i in range(45):
        many = [{**old(1000 * i + k, 0.0), "is_historical": historical} for k in range(1000)]
        seen += values(plant.tell("DDATA", payload(2 + i, *many), "pump"))
    assert len(seen) >= 45_000 - MOST_KEPT
    # What is new waits on beside a past that is long; alone it is too much to wait.
    assert (1.5 in seen) != historical


def test_a_burst_takes_its_place_among_what_was_held() -> None:
    plant = Plant(history_s=2)
    wave = {
        "name": "accel", "alias": 3, "datatype": DataType.FloatArray, "is_null": True,
        "rate": 64.0,
    }  # fmt: skip
    plant.born()
    plant.tell("DBIRTH", payload(1, FLOW, wave), "pump")
    shot = {"alias": 3, "bytes_value": np.zeros(64, dtype=np.float32).tobytes()}
    plant.tell("DDATA", payload(2, shot, ms=MS + 5), "pump")
    plant.tell("DDATA", flow(3, 2.0, ms=MS + 9), "pump")
    found = plant.host.flush().readings
    assert [isinstance(one, Burst) for one in found] == [False, True, False]


def test_one_breath_tells_that_an_asset_is_gone_and_back() -> None:
    plant = a_plant()
    plant.tell("DBIRTH", payload(4, FLOW), "pump")
    plant.tell("DDEATH", payload(3), "pump")
    heard = plant.tell("DDATA", flow(2, 2.0), "pump")
    assert values(heard) == [2.0, 1.5]
    assert [(gone.asset, gone.over) for gone in heard.gone] == [("pump", True)]


def test_the_host_does_not_listen_to_the_edge_node_that_is_its_own() -> None:
    plant = Plant(own=("plant", "hall"))
    assert plant.born(SPEED) == Heard([], [], [])
    assert plant.tell("DDATA", flow(5, 1.0), "pump").say == []


def test_a_node_that_was_not_born_is_asked_once_in_a_while() -> None:
    """tck-id-operational-behavior-data-commands-ncmd-rebirth-verb
    tck-id-operational-behavior-data-commands-ncmd-rebirth-name
    tck-id-operational-behavior-data-commands-ncmd-rebirth-value
    tck-id-operational-behavior-data-commands-ncmd-verb
    tck-id-operational-behavior-data-commands-ncmd-metric-name
    tck-id-operational-behavior-data-commands-ncmd-metric-value tck-id-topics-ncmd-topic
    tck-id-topics-ncmd-mqtt tck-id-topics-ncmd-timestamp tck-id-topics-ncmd-payload
    tck-id-payloads-ncmd-timestamp tck-id-payloads-ncmd-seq tck-id-payloads-ncmd-qos
    tck-id-payloads-ncmd-retain tck-id-payloads-name-cmd-requirement
    """
    plant = Plant(rebirth_s=10)
    (ask,) = plant.tell("DDATA", flow(5, 1.0), "pump").say
    assert (ask.topic, ask.qos, ask.retain) == ("spBv1.0/plant/NCMD/hall", 0, False)
    request = Payload.FromString(ask.payload)
    assert request.timestamp == AT_NS // 10**6
    assert not request.HasField("seq")
    assert request.metrics[0].timestamp == request.timestamp
    assert is_rebirth(ask)
    assert plant.tell("DDATA", flow(6, 1.0), "pump", AT_NS + 9 * SECOND_NS).say == []
    assert len(plant.tell("DDATA", flow(7, 1.0), "pump", AT_NS + 10 * SECOND_NS).say) == 1
    assert len(plant.host.receive("spBv1.0/plant/NDATA/yard", payload(1), AT_NS).say) == 1


def test_an_unknown_alias_asks_for_a_birth_and_costs_no_other_metric() -> None:
    data = payload(2, {"alias": 77, "double_value": 9.0}, {"alias": 1, "double_value": 2.0})
    heard = a_plant().tell("DDATA", data, "pump")
    assert values(heard) == [2.0]
    assert [is_rebirth(m) for m in heard.say] == [True]


def test_a_node_that_was_forgotten_is_asked_to_be_born_again_under_the_same_names() -> None:
    plant = a_plant()
    plant.host.forget("no topic of Sparkplug's")
    assert values(plant.tell("DDATA", flow(2, 1.0), "pump")) == [1.0]
    plant.host.forget("spBv1.0/plant/DDATA/hall/pump")
    heard = plant.tell("DDATA", flow(3, 2.0), "pump")
    assert [is_rebirth(m) for m in heard.say] == [True]
    assert plant.born().refused == ()


def test_numbers_go_round_after_255() -> None:
    plant = a_plant()
    for i in range(600):
        heard = plant.tell("DDATA", flow((2 + i) % 256, i), "pump")
        assert values(heard) == [i]
        assert heard.say == []


def test_messages_that_change_places_are_read_in_order() -> None:
    """tck-id-operational-behavior-host-reordering-start
    tck-id-operational-behavior-host-reordering-success
    """
    plant = a_plant(reorder_s=2)
    assert values(plant.tell("DDATA", flow(4, 4.0), "pump")) == []
    assert values(plant.tell("DDATA", flow(3, 3.0), "pump")) == []
    heard = plant.tell("DDATA", flow(2, 2.0), "pump", AT_NS + SECOND_NS)
    assert values(heard) == [2.0, 3.0, 4.0]
    assert plant.host.tick(AT_NS + MINUTE_NS).say == []
    assert values(plant.tell("DDATA", flow(5, 5.0), "pump")) == [5.0]


@pytest.mark.parametrize("by", ["tick", "message"])
def test_a_message_that_stays_away_makes_the_host_ask_for_a_birth(by: str) -> None:
    """tck-id-operational-behavior-host-reordering-param
    tck-id-operational-behavior-host-reordering-rebirth
    """
    plant = a_plant(reorder_s=2)
    named = {"name": "Speed", "int_value": 7}
    data = payload(3, {"alias": 1, "double_value": 9.0}, named)
    assert plant.tell("DDATA", data, "pump").say == []
    assert plant.host.tick(AT_NS + SECOND_NS).say == []
    late_ns = AT_NS + 2 * SECOND_NS
    if by == "tick":
        heard = plant.host.tick(late_ns)
    else:
        heard = plant.tell("DDATA", payload(4), "pump", late_ns)
    assert [is_rebirth(m) for m in heard.say] == [True]
    # What is missing may be a birth: only what bears its name is sure.
    assert values(heard) == [7]
    assert heard.left_out == 1
    following = 5 if by == "message" else 4
    heard = plant.tell("DDATA", flow(following, 1.0), "pump", late_ns)
    assert (values(heard), heard.left_out) == ([], 1)
    plant.born(FLOW, at_ns=late_ns)
    plant.tell("DBIRTH", payload(1, FLOW), "pump", late_ns)
    assert values(plant.tell("DDATA", flow(2, 3.0), "pump", late_ns)) == [3.0]


def test_a_message_that_comes_a_second_time_changes_nothing() -> None:
    plant = a_plant()
    first = plant.tell("DDATA", flow(2, 2.0), "pump")
    again = plant.tell("DDATA", flow(2, 2.0), "pump")
    assert values(first) == values(again) == [2.0]
    assert values(plant.tell("DDATA", flow(3, 3.0), "pump")) == [3.0]
    assert plant.host.tick(AT_NS + MINUTE_NS).say == []


def test_a_node_whose_birth_was_lost_is_not_taken_for_an_old_message() -> None:
    plant = a_plant()
    for i in range(100):
        plant.tell("DDATA", flow(2 + i, i, ms=MS + i), "pump")
    heard = plant.tell("DDATA", flow(1, 5.0, ms=MS + 1000), "pump")
    assert values(heard) == []
    assert values(plant.host.tick(AT_NS + MINUTE_NS)) == []


def test_data_that_overtook_a_birth_is_read_after_it() -> None:
    plant = a_plant()
    early = payload(1, {"alias": 5, "double_value": 8.0}, ms=MS + 20)
    assert plant.tell("NDATA", early).readings == []
    birth = {"name": "Level", "alias": 5, "datatype": DataType.Double, "double_value": 7.0}
    data = payload(0, bd_seq(1), birth, ms=MS + 10)
    assert values(plant.tell("NBIRTH", data)) == [7.0, 8.0]


def test_what_is_wrong_with_a_held_message_is_told_and_costs_no_other() -> None:
    plant = a_plant()
    plant.tell("DDATA", payload(3, {"alias": 2, "string_value": "x"}), "pump")
    plant.tell("DDATA", flow(4, 4.0), "pump")
    heard = plant.tell("DDATA", flow(2, 2.0), "pump")
    assert values(heard) == [2.0, 4.0]
    assert [error.reason for error in heard.refused] == ["value"]


def test_a_wrong_message_does_not_hold_up_those_after_it() -> None:
    plant = a_plant()
    plant.tell("DDATA", flow(3, 3.0), "pump")
    heard = plant.tell("DDATA", payload(2, {"alias": 2, "string_value": "x"}), "pump")
    assert values(heard) == [3.0]
    assert [error.reason for error in heard.refused] == ["value"]
    assert plant.refuses("DDATA", payload(4, {"alias": 2, "string_value": "x"}), "pump") == "value"
    assert values(plant.tell("DDATA", flow(5, 5.0), "pump")) == [5.0]


def test_what_is_held_is_bounded() -> None:
    plant = a_plant()
    asked = []
    for i in range(MOST_HELD):
        asked += plant.tell("DDATA", flow(3 + i, i), "pump").say
    assert [is_rebirth(m) for m in asked] == [True]


def test_nodes_and_metrics_are_bounded() -> None:
    host = Host("scada")
    for i in range(MOST_NODES):
        host.receive(f"spBv1.0/g/NBIRTH/n{i}", payload(0, bd_seq()), AT_NS)
    with pytest.raises(DecodeError, match="edge nodes"):
        host.receive("spBv1.0/g/NBIRTH/more", payload(0, bd_seq()), AT_NS)
    many = [{"name": f"m{i}"} for i in range(MOST_METRICS)]
    assert Plant().refuses("NBIRTH", payload(0, bd_seq(), *many)) == "bound"


@pytest.mark.parametrize(
    ("verb", "data", "reason"),
    [
        ("NBIRTH", payload(None, bd_seq()), "seq"),
        ("NBIRTH", payload(256, bd_seq()), "seq"),
        ("NBIRTH", payload(0), "bdSeq"),
        ("NBIRTH", payload(0, {"name": "bdSeq", "string_value": "1"}), "bdSeq"),
        ("NBIRTH", payload(0, bd_seq(), {"alias": 4}), "metric"),
        ("NBIRTH", payload(0, bd_seq(), FLOW, {"name": "b", "alias": 1}), "metric"),
        ("NBIRTH", payload(0, bd_seq(), ms=2**63), "time"),
        ("NBIRTH", payload(0, bd_seq(), {**SPEED, "timestamp": 2**60}), "time"),
        ("NBIRTH", b"\x12\x04\x0a\x02\xff\xfe\x18\x00" + payload(0, bd_seq()), "text"),
        ("NBIRTH", payload(0, uuid=COMPRESSED, body=b"x"), "compressed"),
        ("NDATA", b"\xff", "protobuf"),
    ],
)  # fmt: skip
def test_what_is_no_message_of_sparkplug_is_refused(verb: str, data: bytes, reason: str) -> None:
    assert Plant().refuses(verb, data) == reason


def test_a_death_must_say_whose_it_is() -> None:
    plant = a_plant()
    assert plant.refuses("NDEATH", payload(None)) == "bdSeq"


def test_properties_must_have_as_many_keys_as_values() -> None:
    """tck-id-payloads-propertyset-keys-array-size tck-id-payloads-propertyset-values-array-size"""
    message = Payload.FromString(payload(0, bd_seq(), SPEED))
    message.metrics[1].properties.keys.append("engUnit")
    assert Plant().refuses("NBIRTH", message.SerializeToString()) == "properties"


@pytest.mark.parametrize(
    "topic",
    [
        "spBv1.0/g/NDATA",
        "spBv1.0/g/NDATA/n/d",
        "spBv1.0/g/DDATA/n",
        "spBv1.0/g/DDATA/n/d/e",
        "spBv1.0//NDATA/n",
        "spAv1.0/g/NDATA/n",
        "spBv1.0/g/XDATA/n",
        "spBv1.0/STATE/other",
        "",
    ],
)
def test_a_topic_of_another_form_is_refused(topic: str) -> None:
    """tck-id-topic-structure tck-id-topic-structure-namespace-a
    tck-id-topic-structure-namespace-device-id-associated-message-types
    tck-id-topic-structure-namespace-device-id-non-associated-message-types
    """
    with pytest.raises(DecodeError) as caught:
        Host("scada").receive(topic, payload(0), AT_NS)
    assert caught.value.reason == "topic"


def test_commands_of_others_are_none_of_our_business() -> None:
    assert Plant().tell("NCMD", payload(None)) == Heard([], [], [])


@pytest.mark.parametrize("state", [b"ONLINE", b"{}", b'{"online":1,"timestamp":2}', b"\xff"])
def test_a_state_that_is_none_is_refused(state: bytes) -> None:
    host = Host("scada")
    host.will(AT_NS)
    host.birth()
    with pytest.raises(DecodeError) as caught:
        host.receive("spBv1.0/STATE/scada", state, AT_NS)
    assert caught.value.reason == "state"


@pytest.mark.parametrize("name", ["", "a/b", "a#", "a+"])
def test_names_must_be_those_of_sparkplug(name: str) -> None:
    """tck-id-topic-structure-namespace-valid-group-id"""
    with pytest.raises(ValueError, match="no Sparkplug name"):
        Host(name)
    with pytest.raises(ValueError, match="no Sparkplug name"):
        Host("scada", (name,))
