"""Models over gRPC: a real server on loopback; a client that knows nothing but reflection."""

import queue
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from contract.release import Release
from server import grpc_schema
from server.config import load
from server.enrol import init
from server.grpc_schema import message
from server.grpc_service import MOST_CALLS
from server.service_command import grpc_of
from tests.agent.conftest import Reading, wait_until
from tests.server.test_service import free_port, trained

TOKEN = "let-me-in"  # noqa: S105


class Client:
    """Calls methods by their names."""

    def __init__(
        self, port: int, token: str = TOKEN, credentials: grpc.ChannelCredentials | None = None
    ) -> None:
        address = f"127.0.0.1:{port}"
        if credentials is None:
            self.channel = grpc.insecure_channel(address)
        else:
            self.channel = grpc.secure_channel(address, credentials)
        self.metadata = [("authorization", f"Bearer {token}")] if token else []

    def call(self, method: str, **fields: Any) -> Any:
        asked, told = grpc_schema.METHODS[method]
        rows = fields.pop("rows", None)
        request = message(asked)(**fields)
        for row in rows or ():
            request.rows.add(values=row)
        return self.channel.unary_unary(
            f"/{grpc_schema.SERVICE}/{method}",
            request_serializer=message(asked).SerializeToString,
            response_deserializer=message(told).FromString,
        )(request, metadata=self.metadata, timeout=60)

    def refused(self, method: str, **fields: Any) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as error:
            self.call(method, **fields)
        return error.value.code(), error.value.details()


class Served:
    """``runout-server service`` with gRPC on a free port."""

    def __init__(self, folder: Path, release: Release) -> None:
        self.release = release
        self.state = folder / "server"
        (folder / "token").write_text(TOKEN + "\n")
        config = folder / "server.toml"
        config.write_text(
            f'state = "{folder / "server"}"\n[service]\nlisten = "127.0.0.1:{free_port()}"\n'
            f'grpc = "127.0.0.1:{free_port()}"\ntoken_file = "{folder / "token"}"\nmost_rows = 50\n'
            "most_bytes = 20000\n"
        )
        self.process = subprocess.Popen(
            [str(Path(sys.executable).with_name("runout-server")), "service", "--config", config],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.reading = Reading(self.process)
        self.reading.wait_for("models over REST")
        found = re.search(r"over gRPC: 127\.0\.0\.1:(\d+)", self.reading.text)
        assert found
        self.port = int(found[1])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, stores_in: Any) -> Iterator[Served]:
    from tests.server.conftest import LocalGrid

    folder = tmp_path_factory.mktemp("grpc")
    release = trained(folder / "server", LocalGrid(), stores_in(folder / "agents"))
    running = Served(folder, release)
    try:
        yield running
    finally:
        running.process.terminate()
        assert running.process.wait(timeout=60) == 0
        running.reading.close()


def test_one_row_or_many_are_answered_with_the_version(served: Served) -> None:
    client = Client(served.port)
    X = np.random.default_rng(1).normal(size=(40, 4))
    for rows in (X, X[:1]):
        told = client.call("Predict", asset_class="pump", rows=rows.tolist())
        assert (told.version, told.digest) == (2, served.release.digest)
        assert np.array_equal(told.remaining_life_h, served.release.predict(rows))
    first = client.call("Predict", asset_class="pump", version=1, model="sklearn", rows=[X[0]])
    assert (first.version, first.model) == (1, "sklearn")
    scores = client.call("Score", asset_class="pump", rows=X.tolist())
    assert np.array_equal(scores.scores, served.release.score(X))


def test_classes_say_what_rows_consist_of(served: Served) -> None:
    (one,) = Client(served.port).call("Classes").classes
    assert (one.asset_class, one.version) == ("pump", 2)
    assert len(one.features) == len(one.watched) == 4


def test_what_cannot_be_answered_is_said_in_words(served: Served) -> None:
    client = Client(served.port)
    code = grpc.StatusCode
    row = [0.0] * 4
    assert client.refused("Predict", asset_class="fan", rows=[row])[0] == code.NOT_FOUND
    assert client.refused("Predict", asset_class="pump", version=9, rows=[row]) == (
        code.NOT_FOUND,
        "pump has no version 9",
    )
    assert client.refused("Predict", asset_class="pump", rows=[[1.0]]) == (
        code.INVALID_ARGUMENT,
        "row 0 has 1 numbers, not 4",
    )
    nan = [float("nan"), 0.0, 0.0, 0.0]
    assert "not finite" in client.refused("Score", asset_class="pump", rows=[nan])[1]
    assert client.refused("Score", asset_class="pump")[0] == code.INVALID_ARGUMENT
    assert client.refused("Diagnose", asset_class="pump", rows=[row])[0] == code.NOT_FOUND
    many = client.refused("Predict", asset_class="pump", rows=[row] * 51)
    assert many == (code.RESOURCE_EXHAUSTED, "51 rows; 50 at most at a time")
    assert client.refused("Predict", asset_class="pump", rows=[row] * 5000)[0] == (
        code.RESOURCE_EXHAUSTED
    )


@pytest.mark.parametrize("token", ["", "wrong"])
def test_without_the_token_nothing_is_told_but_health(served: Served, token: str) -> None:
    client = Client(served.port, token)
    assert client.refused("Classes")[0] == grpc.StatusCode.UNAUTHENTICATED
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
        list(
            reflection_pb2_grpc.ServerReflectionStub(client.channel).ServerReflectionInfo(
                iter([asked]), metadata=client.metadata, timeout=60
            )
        )
    health = health_pb2_grpc.HealthStub(client.channel)
    for name in ("", grpc_schema.SERVICE):
        answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=60)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    watched = health.Watch(health_pb2.HealthCheckRequest(), metadata=client.metadata, timeout=60)
    with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
        next(watched)


def test_more_calls_at_once_than_it_takes_are_refused(served: Served) -> None:
    client = Client(served.port)
    stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
    refused = threading.Event()
    open_ended: queue.SimpleQueue[Any] = queue.SimpleQueue()  # asks nothing, and does not end
    held = [
        stub.ServerReflectionInfo(iter(open_ended.get, None), metadata=client.metadata)
        for _ in range(MOST_CALLS + 1)
    ]
    for one in held:
        one.add_done_callback(lambda _: refused.set())
    assert refused.wait(60)
    (over,) = (one for one in held if one.done())
    assert over.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert client.refused("Classes")[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
    for one in held:
        one.cancel()
        open_ended.put(None)  # its thread ends

    def answers() -> bool:
        try:
            return bool(client.call("Classes").classes)
        except grpc.RpcError:
            return False

    wait_until(answers)


def test_reflection_tells_a_stranger_the_methods(served: Served) -> None:
    client = Client(served.port)
    stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=grpc_schema.SERVICE),
    ]
    listed, file = stub.ServerReflectionInfo(iter(asked), metadata=client.metadata, timeout=60)
    names = {one.name for one in listed.list_services_response.service}
    assert {grpc_schema.SERVICE, "grpc.health.v1.Health"} <= names
    (content,) = file.file_descriptor_response.file_descriptor_proto
    told = descriptor_pb2.FileDescriptorProto.FromString(content)
    assert [method.name for method in told.service[0].method] == list(grpc_schema.METHODS)


def test_the_file_for_clients_says_the_same(tmp_path: Path) -> None:
    source = Path(grpc_schema.__file__).with_name("models.proto")
    out = tmp_path / "models.binpb"
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"-I{source.parent}"),
            *(f"--descriptor_set_out={out}", str(source)),
        ],
        check=True,
    )
    (compiled,) = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    ours = grpc_schema.described()
    compiled.name = ours.name
    for one in compiled.message_type:
        for field in one.field:
            field.ClearField("json_name")
    assert compiled == ours


def test_beyond_loopback_it_speaks_tls_with_who_knows_the_authority(
    tmp_path: Path, served: Served
) -> None:
    fleet = tmp_path / "fleet"
    init(fleet, f"127.0.0.1:{free_port()}", ["127.0.0.1"])
    port = free_port()
    (tmp_path / "token").write_text(TOKEN + "\n")
    config = tmp_path / "server.toml"
    tls = f'[tls]\nca = "{fleet}/ca.crt"\ncert = "{fleet}/server.pem"\nkey = "{fleet}/server.key"\n'
    config.write_text(
        f'state = "{served.state}"\n[service]\ngrpc = "0.0.0.0:{port}"\n'
        f'token_file = "{tmp_path}/token"\n{tls}'
    )
    with grpc_of(load(config), TOKEN):
        known = grpc.ssl_channel_credentials((fleet / "ca.crt").read_bytes())
        client = Client(port, credentials=known)
        assert client.call("Classes").classes[0].version == 2
        assert Client(port, "wrong", known).refused("Classes")[0] == (
            grpc.StatusCode.UNAUTHENTICATED
        )
        for stranger in (Client(port), Client(port, credentials=grpc.ssl_channel_credentials())):
            assert stranger.refused("Classes")[0] == grpc.StatusCode.UNAVAILABLE


def test_beyond_loopback_it_takes_tls_and_a_token(tmp_path: Path) -> None:
    from contract.errors import ConfigError

    config = tmp_path / "server.toml"
    config.write_text('[service]\ngrpc = "0.0.0.0:8791"\n')
    with pytest.raises(ConfigError, match=r"service\.grpc: '0\.0\.0\.0' is beyond loopback"):
        load(config)
