"""The edge node; assertions of the Sparkplug 3.0 specification by their ids."""

import json
import math
from typing import Any

import pytest

from agent.block import Block
from agent.sparkplug.edge import EdgeNode, Metric
from agent.sparkplug.host import Host
from agent.sparkplug.schema import REBIRTH, DataType, Message, Payload
from contract.errors import DecodeError

MS = 1_767_225_600_000
AT_NS = MS * 10**6
HEALTH = (
    Metric("Health/Index"),
    Metric("Alarm", DataType.Boolean),
    Metric("Cause", DataType.String),
    Metric("Remaining", DataType.Int64, "h"),
    Metric("Score", DataType.Float),
)


def read(message: Message) -> Any:
    return Payload.FromString(message.payload)


def by_name(message: Message) -> dict[str, Any]:
    return {metric.name: metric for metric in read(message).metrics}


def an_edge(*, host: str = "", bd_seq: int = 0) -> EdgeNode:
    edge = EdgeNode("plant", "runout-1", primary_host=host, bd_seq=bd_seq)
    edge.declare("", (Metric("Uptime", DataType.Int64, "s"),), AT_NS)
    edge.declare("pump", HEALTH, AT_NS)
    return edge


def online(edge: EdgeNode) -> list[Message]:
    edge.will(AT_NS)
    return edge.connected(AT_NS)


def state(is_online: bool, timestamp: int) -> bytes:
    return json.dumps({"online": is_online, "timestamp": timestamp}).encode()


def rebirth(value: bool = True) -> bytes:
    message = Payload(timestamp=MS)
    message.metrics.add(name=REBIRTH, datatype=DataType.Boolean, boolean_value=value)
    data: bytes = message.SerializeToString()
    return data


def test_the_will_is_the_death_with_the_number_of_the_connection() -> None:
    """tck-id-message-flow-edge-node-birth-publish-will-message-topic
    tck-id-message-flow-edge-node-birth-publish-will-message-payload
    tck-id-message-flow-edge-node-birth-publish-will-message-payload-bdSeq
    tck-id-message-flow-edge-node-birth-publish-will-message-qos
    tck-id-message-flow-edge-node-birth-publish-will-message-will-retained
    tck-id-topics-ndeath-topic tck-id-topics-ndeath-payload tck-id-topics-ndeath-seq
    tck-id-payloads-ndeath-seq tck-id-payloads-ndeath-will-message-qos
    tck-id-payloads-ndeath-will-message-retain tck-id-topics-nbirth-bdseq-increment
    """
    edge = an_edge()
    for number in (*range(256), 0, 1):
        will = edge.will(AT_NS)
        assert (will.topic, will.qos, will.retain) == ("spBv1.0/plant/NDEATH/runout-1", 1, False)
        assert not read(will).HasField("seq")
        # Of an attempt that comes to nothing the number is used again.
        assert by_name(edge.will(AT_NS, again=True))["bdSeq"].long_value == number
        (metric,) = read(will).metrics
        assert (metric.name, metric.datatype, metric.long_value) == (
            "bdSeq",
            DataType.Int64,
            number,
        )


def test_the_edge_node_listens_for_commands_and_for_its_host() -> None:
    """tck-id-message-flow-edge-node-ncmd-subscribe
    tck-id-operational-behavior-primary-application-state-with-multiple-servers-state-subs
    """
    assert an_edge().subscriptions() == ["spBv1.0/plant/NCMD/runout-1"]
    assert an_edge(host="scada").subscriptions()[1:] == ["spBv1.0/STATE/scada"]


def test_the_birth_of_the_node_says_all_it_must() -> None:
    """tck-id-topics-nbirth-topic tck-id-topics-nbirth-mqtt tck-id-topics-nbirth-seq-num
    tck-id-topics-nbirth-timestamp tck-id-topics-nbirth-metric-reqs tck-id-topics-nbirth-metrics
    tck-id-topics-nbirth-bdseq-included tck-id-topics-nbirth-bdseq-matching
    tck-id-topics-nbirth-rebirth-metric tck-id-message-flow-edge-node-birth-publish-nbirth-topic
    tck-id-message-flow-edge-node-birth-publish-nbirth-payload
    tck-id-message-flow-edge-node-birth-publish-nbirth-payload-bdSeq
    tck-id-message-flow-edge-node-birth-publish-nbirth-qos
    tck-id-message-flow-edge-node-birth-publish-nbirth-retained
    tck-id-message-flow-edge-node-birth-publish-nbirth-payload-seq
    tck-id-payloads-nbirth-timestamp tck-id-payloads-nbirth-seq tck-id-payloads-nbirth-bdseq
    tck-id-payloads-nbirth-bdseq-repeat tck-id-payloads-nbirth-rebirth-req
    tck-id-payloads-nbirth-qos tck-id-payloads-nbirth-retain
    tck-id-payloads-sequence-num-zero-nbirth tck-id-payloads-timestamp-in-UTC
    tck-id-payloads-metric-timestamp-in-UTC tck-id-payloads-metric-datatype-req
    tck-id-payloads-metric-datatype-value-type tck-id-payloads-metric-datatype-value
    tck-id-payloads-name-birth-data-requirement
    tck-id-operational-behavior-data-commands-rebirth-name
    tck-id-operational-behavior-data-commands-rebirth-name-aliases
    tck-id-operational-behavior-data-commands-rebirth-datatype
    tck-id-operational-behavior-data-commands-rebirth-value
    tck-id-operational-behavior-data-publish-nbirth
    tck-id-operational-behavior-data-publish-nbirth-values
    """
    edge = an_edge(bd_seq=41)
    birth, _ = online(edge)
    assert (birth.topic, birth.qos, birth.retain) == ("spBv1.0/plant/NBIRTH/runout-1", 0, False)
    assert (read(birth).seq, read(birth).timestamp) == (0, MS)
    metrics = by_name(birth)
    assert set(metrics) == {"bdSeq", REBIRTH, "Uptime"}
    assert metrics["bdSeq"].long_value == 41
    control = metrics[REBIRTH]
    assert (control.datatype, control.boolean_value) == (DataType.Boolean, False)
    assert control.HasField("boolean_value")
    assert not control.HasField("alias")
    assert all(m.datatype in {*DataType} and m.timestamp for m in read(birth).metrics)
    assert metrics["Uptime"].is_null


def test_the_birth_of_a_device_follows_with_names_and_aliases() -> None:
    """tck-id-topics-dbirth-topic tck-id-topics-dbirth-mqtt tck-id-topics-dbirth-seq
    tck-id-topics-dbirth-timestamp tck-id-topics-dbirth-metric-reqs tck-id-topics-dbirth-metrics
    tck-id-message-flow-device-birth-publish-dbirth-topic
    tck-id-message-flow-device-birth-publish-dbirth-match-edge-node-topic
    tck-id-message-flow-device-birth-publish-dbirth-payload
    tck-id-message-flow-device-birth-publish-dbirth-qos
    tck-id-message-flow-device-birth-publish-dbirth-retained
    tck-id-message-flow-device-birth-publish-dbirth-payload-seq tck-id-payloads-dbirth-timestamp
    tck-id-payloads-dbirth-seq tck-id-payloads-dbirth-seq-inc tck-id-payloads-dbirth-qos
    tck-id-payloads-dbirth-retain tck-id-payloads-alias-uniqueness
    tck-id-payloads-alias-birth-requirement tck-id-payloads-name-requirement
    tck-id-operational-behavior-data-publish-dbirth
    tck-id-operational-behavior-data-publish-dbirth-values
    tck-id-payloads-metric-propertyvalue-type-type tck-id-payloads-metric-propertyvalue-type-value
    tck-id-payloads-metric-propertyvalue-type-req
    """
    edge = an_edge()
    node, device = online(edge)
    assert (device.topic, device.qos, device.retain) == (
        "spBv1.0/plant/DBIRTH/runout-1/pump", 0, False
    )  # fmt: skip
    assert (read(device).seq, read(device).timestamp) == (1, MS)
    metrics = by_name(device)
    assert set(metrics) == {metric.name for metric in HEALTH}
    for name, metric in metrics.items():
        assert metric.is_null, name
        assert metric.WhichOneof("value") is None
        assert metric.timestamp
    (unit,) = metrics["Remaining"].properties.values
    assert (unit.type, unit.string_value) == (DataType.String, "h")
    aliases = [m.alias for b in (node, device) for m in read(b).metrics if m.HasField("alias")]
    assert len(aliases) == len(set(aliases)) == 6


def test_data_bears_aliases_alone_and_the_next_number() -> None:
    """tck-id-topics-ddata-topic tck-id-topics-ddata-mqtt tck-id-topics-ddata-seq-num
    tck-id-topics-ddata-timestamp tck-id-topics-ddata-payload tck-id-payloads-ddata-timestamp
    tck-id-payloads-ddata-seq tck-id-payloads-ddata-seq-inc tck-id-payloads-ddata-qos
    tck-id-payloads-ddata-retain tck-id-payloads-alias-data-cmd-requirement
    tck-id-payloads-metric-datatype-not-req tck-id-operational-behavior-data-publish-dbirth-order
    """
    edge = an_edge()
    _, birth = online(edge)
    values = {"Health/Index": 0.5, "Alarm": True, "Cause": "wear", "Remaining": -3, "Score": 2.0}
    (data,) = edge.publish("pump", values, AT_NS, t_ns=AT_NS - 10**9)
    assert (data.topic, data.qos, data.retain) == ("spBv1.0/plant/DDATA/runout-1/pump", 0, False)
    assert read(data).seq == 2
    names = {metric.alias: name for name, metric in by_name(birth).items()}
    found = {}
    for metric in read(data).metrics:
        assert not metric.HasField("name")
        assert not metric.HasField("datatype")
        assert metric.timestamp == MS - 1000
        found[names[metric.alias]] = getattr(metric, metric.WhichOneof("value"))
    assert found == {**values, "Remaining": 2**64 - 3}


def test_the_node_has_data_of_its_own() -> None:
    """tck-id-topics-ndata-topic tck-id-topics-ndata-mqtt tck-id-topics-ndata-seq-num
    tck-id-topics-ndata-timestamp tck-id-topics-ndata-payload tck-id-payloads-ndata-timestamp
    tck-id-payloads-ndata-seq tck-id-payloads-ndata-seq-inc tck-id-payloads-ndata-qos
    tck-id-payloads-ndata-retain tck-id-operational-behavior-data-publish-nbirth-change
    tck-id-operational-behavior-data-publish-nbirth-order
    """
    edge = an_edge()
    online(edge)
    (data,) = edge.publish("", {"Uptime": 5}, AT_NS)
    assert (data.topic, data.qos, data.retain) == ("spBv1.0/plant/NDATA/runout-1", 0, False)
    assert (read(data).seq, read(data).timestamp) == (2, MS)
    assert edge.publish("", {"Uptime": 5}, AT_NS) == []


def test_only_what_has_changed_is_published() -> None:
    """tck-id-principles-rbe-recommended tck-id-operational-behavior-data-publish-dbirth-change"""
    edge = an_edge()
    online(edge)
    assert len(edge.publish("pump", {"Score": 1.0}, AT_NS)) == 1
    assert edge.publish("pump", {"Score": 1.0}, AT_NS) == []
    (data,) = edge.publish("pump", {"Score": 1.0, "Alarm": True}, AT_NS)
    assert len(read(data).metrics) == 1
    (data,) = edge.publish("pump", {"Score": None}, AT_NS)
    assert read(data).metrics[0].is_null


def test_historical_data_says_so_and_is_not_what_is_now() -> None:
    edge = an_edge()
    online(edge)
    (data,) = edge.publish("pump", {"Score": 9.0}, AT_NS, t_ns=AT_NS - 10**12, historical=True)
    assert read(data).metrics[0].is_historical
    assert by_name(online(edge)[1])["Score"].is_null


def test_numbers_go_round_after_255() -> None:
    """tck-id-payloads-sequence-num-incrementing tck-id-payloads-sequence-num-always-included"""
    edge = an_edge()
    online(edge)
    for i in range(600):
        (data,) = edge.publish("pump", {"Score": float(i)}, AT_NS)
        assert read(data).seq == (2 + i) % 256


def test_nothing_is_said_before_the_birth_but_the_birth_says_what_was() -> None:
    """tck-id-payloads-ddata-order tck-id-message-flow-edge-node-birth-publish-connect"""
    edge = an_edge()
    assert edge.publish("pump", {"Score": 4.0}, AT_NS - 10**9) == []
    _, birth = online(edge)
    score = by_name(birth)["Score"]
    assert (score.float_value, score.timestamp) == (4.0, MS - 1000)


def test_a_rebirth_repeats_all_births_with_the_same_number_of_the_connection() -> None:
    """tck-id-operational-behavior-data-commands-rebirth-action-1
    tck-id-operational-behavior-data-commands-rebirth-action-2
    tck-id-operational-behavior-data-commands-rebirth-action-3
    """
    edge = an_edge(bd_seq=3)
    first = online(edge)
    edge.publish("pump", {"Score": 1.0}, AT_NS)
    again = edge.receive("spBv1.0/plant/NCMD/runout-1", rebirth(), AT_NS + 10**9).say
    assert [m.topic for m in again] == [m.topic for m in first]
    assert by_name(again[0])["bdSeq"].long_value == 3
    assert [read(m).seq for m in again] == [0, 1]
    assert by_name(again[1])["Score"].alias == by_name(first[1])["Score"].alias
    assert by_name(again[1])["Score"].float_value == 1.0


def test_other_commands_change_nothing() -> None:
    edge = an_edge()
    assert edge.receive("spBv1.0/plant/NCMD/runout-1", rebirth(), AT_NS).say == []
    online(edge)
    for topic, payload in (
        ("spBv1.0/plant/NCMD/runout-1", rebirth(value=False)),
        ("spBv1.0/plant/NCMD/other", rebirth()),
        ("spBv1.0/plant/DCMD/runout-1/pump", rebirth()),
        ("spBv1.0/plant/NDATA/runout-1", rebirth()),
    ):
        assert edge.receive(topic, payload, AT_NS).say == []


def test_the_births_wait_for_the_primary_host() -> None:
    """tck-id-message-flow-edge-node-birth-publish-phid-wait
    tck-id-message-flow-edge-node-birth-publish-phid-wait-id
    tck-id-message-flow-edge-node-birth-publish-phid-wait-online
    tck-id-message-flow-edge-node-birth-publish-phid-wait-timestamp
    tck-id-operational-behavior-edge-node-birth-sequence-wait
    """
    edge = an_edge(host="scada")
    assert online(edge) == []
    assert edge.publish("pump", {"Score": 1.0}, AT_NS) == []
    with pytest.raises(DecodeError):
        edge.receive("spBv1.0/STATE/other", state(True, MS), AT_NS)
    assert edge.receive("spBv1.0/STATE/scada", state(False, MS), AT_NS).say == []
    assert edge.receive("spBv1.0/STATE/scada", state(True, MS - 1), AT_NS).say == []
    births = edge.receive("spBv1.0/STATE/scada", state(True, MS), AT_NS).say
    assert [read(m).seq for m in births] == [0, 1]
    assert edge.receive("spBv1.0/STATE/scada", state(True, MS + 1), AT_NS).say == []


def test_a_host_that_was_heard_before_the_connection_was_told_is_not_waited_for() -> None:
    edge = an_edge(host="scada")
    edge.will(AT_NS)
    assert edge.receive("spBv1.0/STATE/scada", state(True, MS), AT_NS).say == []
    assert len(edge.connected(AT_NS)) == 2


def test_when_the_primary_host_goes_the_edge_node_leaves_and_comes_again() -> None:
    """tck-id-message-flow-edge-node-birth-publish-phid-offline
    tck-id-operational-behavior-edge-node-termination-host-offline
    tck-id-operational-behavior-edge-node-termination-host-offline-timestamp
    """
    edge = an_edge(host="scada")
    online(edge)
    edge.receive("spBv1.0/STATE/scada", state(True, MS), AT_NS)
    old = edge.receive("spBv1.0/STATE/scada", state(False, MS - 1), AT_NS)
    assert (old.say, old.disconnect) == ([], False)
    gone = edge.receive("spBv1.0/STATE/scada", state(False, MS), AT_NS)
    assert gone.disconnect
    assert [m.topic for m in gone.say] == ["spBv1.0/plant/NDEATH/runout-1"]
    assert edge.publish("pump", {"Score": 1.0}, AT_NS) == []
    assert by_name(edge.will(AT_NS))["bdSeq"].long_value == 1


@pytest.mark.parametrize("payload", [b"ONLINE", b"{}", b"", b"[]"])
def test_a_state_that_is_none_is_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError, match="STATE"):
        an_edge(host="scada").receive("spBv1.0/STATE/scada", payload, AT_NS)


def test_the_death_is_said_before_leaving() -> None:
    """tck-id-operational-behavior-edge-node-intentional-disconnect-ndeath"""
    edge = an_edge(bd_seq=9)
    assert edge.death(AT_NS) == []
    online(edge)
    (death,) = edge.death(AT_NS)
    assert by_name(death)["bdSeq"].long_value == 9
    assert edge.death(AT_NS) == []


def test_a_device_that_is_lost_is_said_to_be_dead_and_then_born_again() -> None:
    """tck-id-operational-behavior-device-ddeath tck-id-topics-ddeath-topic
    tck-id-topics-ddeath-mqtt tck-id-topics-ddeath-seq-num tck-id-payloads-ddeath-timestamp
    tck-id-payloads-ddeath-seq tck-id-payloads-ddeath-seq-inc tck-id-payloads-ddeath-seq-number
    """
    edge = an_edge()
    online(edge)
    (death,) = edge.gone("pump", AT_NS)
    assert (death.topic, death.qos, death.retain) == (
        "spBv1.0/plant/DDEATH/runout-1/pump", 0, False
    )  # fmt: skip
    assert (read(death).seq, read(death).timestamp) == (2, MS)
    assert edge.gone("pump", AT_NS) == []
    assert edge.publish("pump", {"Score": 1.0}, AT_NS) == []
    assert [m.topic for m in edge.receive("spBv1.0/plant/NCMD/runout-1", rebirth(), AT_NS).say] == [
        "spBv1.0/plant/NBIRTH/runout-1"
    ]
    (birth,) = edge.declare("pump", HEALTH, AT_NS)
    assert read(birth).seq == 1
    assert by_name(birth)["Score"].float_value == 1.0


def test_a_device_that_comes_later_is_born_then() -> None:
    """tck-id-message-flow-device-birth-publish-nbirth-wait"""
    edge = an_edge()
    online(edge)
    (birth,) = edge.declare("fan", HEALTH, AT_NS)
    assert birth.topic == "spBv1.0/plant/DBIRTH/runout-1/fan"
    assert read(birth).seq == 2
    again = edge.declare("", (Metric("Load"),), AT_NS)
    assert [m.topic.split("/")[2] for m in again] == ["NBIRTH", "DBIRTH", "DBIRTH"]


@pytest.mark.parametrize("names", [("Score", "score"), ("bdSeq",), (REBIRTH,), ("",)])
def test_names_that_are_alike_or_reserved_are_refused(names: tuple[str, ...]) -> None:
    """tck-id-case-sensitivity-metric-names"""
    with pytest.raises(ValueError, match="alike"):
        an_edge().declare("fan", tuple(Metric(name) for name in names), AT_NS)


@pytest.mark.parametrize("name", ["", "a/b", "a#", "a+"])
def test_names_are_text_that_can_stand_in_a_topic(name: str) -> None:
    """tck-id-intro-group-id-string tck-id-intro-group-id-chars tck-id-intro-edge-node-id-string
    tck-id-intro-edge-node-id-chars tck-id-intro-device-id-string tck-id-intro-device-id-chars
    tck-id-topic-structure-namespace-valid-edge-node-id
    tck-id-topic-structure-namespace-valid-device-id
    """
    edge = EdgeNode("werk-süd", "knoten ä")
    edge.declare("rührer-3", HEALTH, AT_NS)
    assert [one.topic for one in online(edge)] == [
        "spBv1.0/werk-süd/NBIRTH/knoten ä",
        "spBv1.0/werk-süd/DBIRTH/knoten ä/rührer-3",
    ]
    for group, node in ((name, "n"), ("g", name)):
        with pytest.raises(ValueError, match="no Sparkplug name"):
            EdgeNode(group, node)
    with pytest.raises(ValueError, match="no Sparkplug name"):
        edge.declare(name or "+", HEALTH, AT_NS)


def test_mistakes_of_the_caller_are_told() -> None:
    edge = an_edge()
    with pytest.raises(ValueError, match="no Sparkplug name"):
        edge.declare("a/b", HEALTH, AT_NS)
    with pytest.raises(ValueError, match="no Sparkplug name"):
        EdgeNode("a/b", "n")
    with pytest.raises(ValueError, match="bd_seq"):
        EdgeNode("a", "n", bd_seq=256)
    with pytest.raises(ValueError, match="datatype"):
        edge.declare("fan", (Metric("x", DataType.DataSet),), AT_NS)
    with pytest.raises(KeyError):
        edge.publish("fan", {"x": 1.0}, AT_NS)
    with pytest.raises(KeyError):
        edge.publish("pump", {"x": 1.0}, AT_NS)


def test_a_host_understands_what_an_edge_node_says_through_every_turn() -> None:
    edge, host = an_edge(), Host("scada", ("plant",))
    found: list[tuple[str, str, str, float]] = []
    said: list[str] = []

    def hear(messages: list[Message]) -> None:
        for message in messages:
            heard = host.receive(message.topic, message.payload, AT_NS)
            said.extend(gone.asset for gone in heard.gone)
            for block in heard.readings:
                assert isinstance(block, Block)
                for channel, unit, value in zip(
                    block.channels, block.units, block.values[0].tolist(), strict=True
                ):
                    if not math.isnan(value):  # what is not known yet is NaN
                        found.append((block.asset, channel, unit, value))
            for ask in heard.say:
                hear(edge.receive(ask.topic, ask.payload, AT_NS).say)

    will = edge.will(AT_NS)
    edge.connected(AT_NS)  # unheard: the host comes later
    hear(edge.publish("pump", {"Health/Index": 0.75, "Remaining": -3}, AT_NS))
    assert found == [("pump", "Health.Index", "", 0.75), ("pump", "Remaining", "h", -3)]
    hear(edge.publish("", {"Uptime": 5}, AT_NS))
    assert found[2:] == [("runout-1", "Uptime", "s", 5)]
    hear(edge.gone("pump", AT_NS))
    hear([will])
    assert said == ["pump", "runout-1"]
