"""The messages of Sparkplug B, built for the protobuf runtime from the public schema.

No generated file: the schema is written down as a table, in a descriptor pool of its own, so that
nothing else that brings Sparkplug's messages into the process can clash with it.
"""

from enum import IntEnum
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from contract.errors import DecodeError

NAMESPACE = "spBv1.0"
REBIRTH = "Node Control/Rebirth"
BDSEQ = "bdSeq"
COMPRESSED = "SPBV1.0_COMPRESSED"
"""The ``uuid`` of a payload whose body is another one, compressed; not part of the standard."""
LATEST_MS = (2**63 - 1) // 10**6


class DataType(IntEnum):
    """What a metric's value is."""

    Int8 = 1
    Int16 = 2
    Int32 = 3
    Int64 = 4
    UInt8 = 5
    UInt16 = 6
    UInt32 = 7
    UInt64 = 8
    Float = 9
    Double = 10
    Boolean = 11
    String = 12
    DateTime = 13
    Text = 14
    UUID = 15
    DataSet = 16
    Bytes = 17
    File = 18
    Template = 19
    PropertySet = 20
    PropertySetList = 21
    Int8Array = 22
    Int16Array = 23
    Int32Array = 24
    Int64Array = 25
    UInt8Array = 26
    UInt16Array = 27
    UInt32Array = 28
    UInt64Array = 29
    FloatArray = 30
    DoubleArray = 31
    BooleanArray = 32
    StringArray = 33
    DateTimeArray = 34


class Message(NamedTuple):
    """What is to be published, or left as the will."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


class Topic(NamedTuple):
    """The names in a topic; ``device`` is "" where there is none."""

    group: str
    verb: str
    node: str
    device: str


_VERBS = frozenset({"NBIRTH", "NDEATH", "NDATA", "NCMD", "DBIRTH", "DDEATH", "DDATA", "DCMD"})

# Per message: field, number, type, in a oneof ("=") or repeated ("*") or neither.
_PROPERTY = (
    "int_value 3 uint32 =, long_value 4 uint64 =, float_value 5 float =, double_value 6 double =, "
    "boolean_value 7 bool =, string_value 8 string ="
)
_SCHEMA = {
    "Payload": (
        "timestamp 1 uint64, metrics 2 Payload.Metric *, seq 3 uint64, uuid 4 string, body 5 bytes"
    ),
    "Payload.Metric": (
        "name 1 string, alias 2 uint64, timestamp 3 uint64, datatype 4 uint32, "
        "is_historical 5 bool, is_transient 6 bool, is_null 7 bool, metadata 8 Payload.MetaData, "
        "properties 9 Payload.PropertySet, int_value 10 uint32 =, long_value 11 uint64 =, "
        "float_value 12 float =, double_value 13 double =, boolean_value 14 bool =, "
        "string_value 15 string =, bytes_value 16 bytes =, dataset_value 17 Payload.DataSet =, "
        "template_value 18 Payload.Template ="
    ),
    "Payload.MetaData": (
        "is_multi_part 1 bool, content_type 2 string, size 3 uint64, seq 4 uint64, "
        "file_name 5 string, file_type 6 string, md5 7 string, description 8 string"
    ),
    "Payload.PropertySet": "keys 1 string *, values 2 Payload.PropertyValue *",
    "Payload.PropertySetList": "propertyset 1 Payload.PropertySet *",
    "Payload.PropertyValue": (
        f"type 1 uint32, is_null 2 bool, {_PROPERTY}, "
        "propertyset_value 9 Payload.PropertySet =, propertysets_value 10 Payload.PropertySetList ="
    ),
    "Payload.DataSet": (
        "num_of_columns 1 uint64, columns 2 string *, types 3 uint32 *, "
        "rows 4 Payload.DataSet.Row *"
    ),
    "Payload.DataSet.Row": "elements 1 Payload.DataSet.DataSetValue *",
    "Payload.DataSet.DataSetValue": (
        "int_value 1 uint32 =, long_value 2 uint64 =, float_value 3 float =, "
        "double_value 4 double =, boolean_value 5 bool =, string_value 6 string ="
    ),
    "Payload.Template": (
        "version 1 string, metrics 2 Payload.Metric *, "
        "parameters 3 Payload.Template.Parameter *, template_ref 4 string, is_definition 5 bool"
    ),
    "Payload.Template.Parameter": f"name 1 string, type 2 uint32, {_PROPERTY}",
}
_PACKAGE = "org.eclipse.tahu.protobuf"
_Field = descriptor_pb2.FieldDescriptorProto
_BASIC = {
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
    "float": _Field.TYPE_FLOAT,
    "double": _Field.TYPE_DOUBLE,
    "bool": _Field.TYPE_BOOL,
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
}


def _build() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="sparkplug_b.proto", package=_PACKAGE, syntax="proto2"
    )
    made: dict[str, Any] = {}
    for name, fields in _SCHEMA.items():
        outer, _, own = name.rpartition(".")
        built = made[outer].nested_type.add(name=own) if outer else file.message_type.add(name=own)
        made[name] = built
        for field in fields.split(", "):
            label, number, kind, *how = field.split()
            proto = built.field.add(name=label, number=int(number), label=_Field.LABEL_OPTIONAL)
            if kind in _BASIC:
                proto.type = _BASIC[kind]
            else:
                proto.type = _Field.TYPE_MESSAGE
                proto.type_name = f".{_PACKAGE}.{kind}"
            if how == ["*"]:
                proto.label = _Field.LABEL_REPEATED
            elif how == ["="]:
                if not built.oneof_decl:
                    built.oneof_decl.add(name="value")
                proto.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Payload"))


Payload = _build()
"""The class of a payload: protobuf's own, so without static types."""


def read_payload(payload: bytes) -> Any:
    """Parse a payload.

    Raises:
        DecodeError: ``protobuf``, ``compressed``.
    """
    try:
        read = Payload.FromString(payload)
    except message.DecodeError as error:
        raise DecodeError("protobuf", "not a Sparkplug B payload") from error
    if read.uuid == COMPRESSED:
        raise DecodeError("compressed", "the payload is compressed: switch that off at the node")
    return read


def read_topic(topic: str) -> Topic:
    """Split ``spBv1.0/<group>/<verb>/<node>[/<device>]``.

    Raises:
        DecodeError: ``topic``.

    >>> read_topic("spBv1.0/plant/DDATA/press-hall/press-3")
    Topic(group='plant', verb='DDATA', node='press-hall', device='press-3')
    """
    namespace, *names = topic.split("/")
    if (
        namespace == NAMESPACE
        and 3 <= len(names) <= 4
        and all(names)
        and names[1] in _VERBS
        and (len(names) == 4) == names[1].startswith("D")
    ):
        return Topic(names[0], names[1], names[2], names[3] if len(names) == 4 else "")
    raise DecodeError("topic", f"{topic[:200]!r} is no Sparkplug B topic of a node or device")
