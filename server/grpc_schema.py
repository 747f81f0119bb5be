"""The messages and methods of ``models.proto``, built for the protobuf runtime.

No generated file, which would tie Runout to one version of the runtime; that table and file say the
same is tested with the compiler.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "runout.v1"
SERVICE = f"{PACKAGE}.Models"
FILE = "runout/v1/models.proto"

_F = descriptor_pb2.FieldDescriptorProto
_ANSWERED = [
    ("asset_class", _F.TYPE_STRING, ""),
    ("version", _F.TYPE_UINT32, ""),
    ("digest", _F.TYPE_STRING, ""),
]
MESSAGES: dict[str, list[tuple[str, int, str]]] = {
    "Row": [("values", _F.TYPE_DOUBLE, "repeated")],
    "RowsRequest": [
        ("asset_class", _F.TYPE_STRING, ""),
        ("version", _F.TYPE_UINT32, ""),
        ("model", _F.TYPE_STRING, ""),
        ("rows", _F.TYPE_MESSAGE, "repeated Row"),
    ],
    "PredictReply": [
        *_ANSWERED,
        ("model", _F.TYPE_STRING, ""),
        ("remaining_life_h", _F.TYPE_DOUBLE, "repeated"),
    ],
    "ScoreReply": [*_ANSWERED, ("scores", _F.TYPE_DOUBLE, "repeated")],
    "DiagnoseReply": [
        *_ANSWERED,
        ("kinds", _F.TYPE_STRING, "repeated"),
        ("shares", _F.TYPE_MESSAGE, "repeated Row"),
    ],
    "ClassesRequest": [],
    "AssetClass": [
        *_ANSWERED,
        ("features", _F.TYPE_STRING, "repeated"),
        ("watched", _F.TYPE_STRING, "repeated"),
        ("kinds", _F.TYPE_STRING, "repeated"),
    ],
    "ClassesReply": [("classes", _F.TYPE_MESSAGE, "repeated AssetClass")],
}
"""By message: name, type and, behind ``repeated``, the message that a field is of."""
METHODS = {
    "Classes": ("ClassesRequest", "ClassesReply"),
    "Predict": ("RowsRequest", "PredictReply"),
    "Score": ("RowsRequest", "ScoreReply"),
    "Diagnose": ("RowsRequest", "DiagnoseReply"),
}


def described() -> descriptor_pb2.FileDescriptorProto:
    """Return the file as a descriptor."""
    file = descriptor_pb2.FileDescriptorProto(name=FILE, package=PACKAGE, syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind, more) in enumerate(fields, 1):
            of = more.removeprefix("repeated").strip()
            message.field.add(
                name=field,
                number=number,
                type=kind,
                label=_F.LABEL_REPEATED if more else _F.LABEL_OPTIONAL,
                type_name=f".{PACKAGE}.{of}" if of else None,
            )
    service = file.service.add(name="Models")
    for name, (asked, told) in METHODS.items():
        service.method.add(
            name=name, input_type=f".{PACKAGE}.{asked}", output_type=f".{PACKAGE}.{told}"
        )
    return file


_pool = descriptor_pool.Default()
_pool.Add(described())


def message(name: str) -> Any:
    """Return a message's class."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
