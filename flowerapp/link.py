"""A node's end of SuperLink's fleet interface. All that is used of Flower's inside is in here.

Flower's own node keeps the connection, too, but starts a process for each message, takes the app
from the network, and ends itself where it is refused. This one only carries messages: every fault
is an exception that says what to do. ``tests/server/test_link.py`` holds it against a stock
SuperLink, so that a Flower that is another inside is found before a device meets it.
"""

import base64
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Error, Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import TIMESTAMP_HEADER, ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
    UnregisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
    FLWR_COMPONENT_NAME_METADATA_KEY,
    FLWR_PACKAGE_NAME_METADATA_KEY,
    FLWR_PACKAGE_VERSION_METADATA_KEY,
)
from flwr.supercore.inflatable.inflatable_object import (
    UnexpectedObjectContentError,
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectPushError,
    pull_and_inflate_object_from_tree,
    push_objects,
)
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supercore.task_identity import TaskIdentity
from flwr.supercore.version import package_name, package_version
from flwr.supernode.fleet_http_client import FleetHttpClient

from contract.errors import RunoutError

_Request = TypeVar("_Request")
_Answer = TypeVar("_Answer")

HEARTBEAT_S = 60
"""What SuperLink is told; a node that it has not heard for twice as long is away."""
TIMEOUT_S = 30.0
LEAVE_S = 3.0
"""For the last word, on which nothing depends."""
AHEAD_S, BEHIND_S = 5, 300
"""SuperLink takes nothing from a node whose clock is off by more."""
TRANSFERS = 2
"""Pieces of arrays under way at a time, each held whole in memory."""
# Codes of flwr.supercore.error, which would bring FastAPI with it: 18 MB.
KEY_IN_USE, VERSION_APART, NO_REGISTRATION, NOT_ACTIVATED = 23, 1001, 2001, 2004
AWAY = frozenset({429, 500, 502, 503, 504})
"""Answers of a server, or of what stands before it, that is not well and may be again."""


class LinkError(RunoutError):
    """The server was not reached, or takes no part of this node."""


class AwayError(LinkError):
    """Nobody answers who could: wait, and try again."""


class RefusedError(LinkError):
    """The server was reached and will not have this node; waiting alone seldom helps.

    Attributes:
        clock: the time is wrong here, and the key may be as good as any.
    """

    def __init__(self, text: str, *, clock: bool = False) -> None:
        super().__init__(text)
        self.clock = clock


class OverError(LinkError):
    """What the message was part of has ended: drop it."""


def failed(message: Message, error: Exception) -> Message:
    """Return what Flower's own node answers where the app raised an error."""
    reason = f"{type(error).__name__}: {error}"
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)


class _Identity:
    """Signs each request, and hears from each answer what time the server has."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, now: Callable[[], float]) -> None:
        self._key = key
        self._now = now
        public = base64.b64encode(public_key_to_bytes(key.public_key())).decode()
        self._always = {
            FLEET_HTTP_PUBLIC_KEY_HEADER: public,
            FLWR_COMPONENT_NAME_METADATA_KEY: "SuperNode",
            FLWR_PACKAGE_NAME_METADATA_KEY: package_name,
            FLWR_PACKAGE_VERSION_METADATA_KEY: package_version,
        }
        self.ahead_s = 0.0
        """By how much this clock was ahead of the server's, to a second, when it last answered."""

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        at = datetime.fromtimestamp(self._now(), UTC).isoformat()
        signature = base64.b64encode(sign_message(self._key, at.encode("ascii"))).decode()
        headers = {TIMESTAMP_HEADER: at, FLEET_HTTP_SIGNATURE_HEADER: signature}
        context.request.headers.update(self._always | headers)
        answer = call_next(context)
        try:
            theirs = parsedate_to_datetime(answer.headers.get("date", ""))
        except ValueError:
            self.ahead_s = 0.0
        else:
            self.ahead_s = self._now() - theirs.timestamp()
        return answer


class Link:
    """One node's connection: opened, polled, closed; opened again it is the same node.

    ``beat`` may be called from another thread, everything else from one.

    Args:
        address: ``host:port``.
        ca: PEM of the authority that signed the server's certificate; None: no TLS.
        key: that the server knows this node by; None: one of its own, with a server that asks none.
        number: that an earlier process of this node had; 0: none is known.
        now: seconds since 1970.
    """

    def __init__(
        self,
        address: str,
        *,
        ca: str | None = None,
        key: ec.EllipticCurvePrivateKey | None = None,
        number: int = 0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._address = address
        self._base = f"{'http' if ca is None else 'https'}://{address}"
        self._registers = key is None
        self._verify: ssl.SSLContext | bool = (
            False if ca is None else ssl.create_default_context(cadata=ca)
        )
        self._key = key or ec.generate_private_key(ec.SECP384R1())
        self._identity = _Identity(self._key, now)
        self._public = public_key_to_bytes(self._key.public_key())
        self._client = self._connect(TIMEOUT_S)
        self._node = Node(node_id=number) if number and key else None

    def _connect(self, timeout_s: float) -> FleetHttpClient:
        return FleetHttpClient(
            self._base, interceptors=[self._identity], verify=self._verify, timeout=timeout_s
        )

    @property
    def node_id(self) -> int:
        """Return the number by which the server knows this node; 0 before it does."""
        return self._node.node_id if self._node else 0

    def open(self) -> int:
        """Tell the server that this node is there; returns its number.

        Raises:
            AwayError: the server cannot be reached.
            RefusedError: it does not know the key, or is not the server that it should be.
        """
        if not self._is_known():
            if self._registers:
                self._register()
            request = ActivateNodeRequest(public_key=self._public, heartbeat_interval=HEARTBEAT_S)
            self._node = Node(node_id=self._ask(self._client.ActivateNode, request).node_id)
        # Flower's messages read from it who they are of.
        TaskIdentity.node_id, TaskIdentity.run_id, TaskIdentity.task_id = self.node_id, 0, 0
        return self.node_id

    def _is_known(self) -> bool:
        """Return whether the server takes this node for one that it knows already.

        It lets nobody in whom it holds for present, and does so for a while of a node whose
        connection broke or whose process was killed.
        """
        try:
            self.beat()
        except RefusedError as error:
            if error.clock:
                raise
            self._node = None
        return self._node is not None

    def _register(self) -> None:
        try:
            self._ask(self._client.RegisterNode, RegisterNodeFleetRequest(public_key=self._public))
        except RefusedError as error:
            if _code_of(error.__cause__) != KEY_IN_USE:
                raise
            # By us, before the connection was lost: it is the same node.

    def beat(self) -> None:
        """Say that this node is alive, however long it takes to answer; raises ``LinkError``."""
        if self._node is None:
            return
        request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=HEARTBEAT_S)
        if not self._ask(self._client.SendNodeHeartbeat, request).success:
            raise RefusedError("the server does not know this node any more")

    def receive(self) -> Message | None:
        """Take the next message for this node, whole; None if there is none.

        Raises:
            LinkError: as ``open``; ``OverError`` if the message is of a run that has ended.
        """
        node, client = self._connected(), self._client
        pulled = self._ask(client.PullMessages, PullMessagesRequest(node=node))
        if not pulled.messages_list:
            return None
        head, tree = message_from_proto(pulled.messages_list[0]), pulled.message_object_trees[0]
        run = head.metadata.run_id
        try:
            message = self._carry(
                lambda: pull_and_inflate_object_from_tree(
                    tree,
                    make_pull_object_fn_protobuf(client.PullObject, node, run),
                    make_confirm_message_received_fn_protobuf(
                        client.ConfirmMessageReceived, node, run
                    ),
                    return_type=Message,
                    max_concurrent_pulls=TRANSFERS,
                )
            )
        except (ObjectPullError, UnexpectedObjectContentError, TypeError, ValueError) as error:
            raise OverError(f"a message did not come whole ({error})") from error
        # The number of a message is not part of what is numbered.
        message.metadata.__dict__["_message_id"] = tree.object_id
        return message

    def send(self, reply: Message, seconds: float = 0.0) -> None:
        """Send an answer, and all its arrays; may be called again after an ``AwayError``.

        Args:
            reply: to a message that ``receive`` returned.
            seconds: that making it took, for the server's statistics.

        Raises:
            LinkError: as ``receive``.
        """
        node = self._connected()
        reply.metadata.__dict__["_message_id"] = reply.object_id
        head = reply if reply.has_error() else remove_content_from_message(reply)
        with no_object_id_recompute():
            request = PushMessagesRequest(
                node=node,
                messages_list=[message_to_proto(head)],
                message_object_trees=[get_object_tree(reply)],
                clientapp_runtime_list=[seconds],
            )
            pushed = self._ask(self._client.PushMessages, request)
            push = make_push_object_fn_protobuf(
                self._client.PushObject, node, reply.metadata.run_id, pushed.session_id
            )
            try:
                self._carry(
                    lambda: push_objects(
                        get_all_nested_objects(reply),
                        push,
                        object_ids_to_push=set(pushed.objects_to_push),
                        max_concurrent_pushes=TRANSFERS,
                    )
                )
            except ObjectPushError as error:
                raise OverError(f"the server did not take an answer whole ({error})") from error

    def close(self) -> None:
        """Tell the server that this node leaves, if it can be told within seconds."""
        node, self._node = self._node, None
        if node is not None:
            with self._connect(LEAVE_S) as last:
                try:
                    last.DeactivateNode(DeactivateNodeRequest(node_id=node.node_id))
                    if self._registers:
                        last.UnregisterNode(UnregisterNodeFleetRequest(node_id=node.node_id))
                except (httpx.HTTPError, ValueError):
                    pass  # it will miss this node's heartbeats
        self._client.close()

    def _connected(self) -> Node:
        if self._node is None:
            raise AwayError("not connected: call open() first")
        return self._node

    # -- faults -------------------------------------------------------------------------------

    def _ask(self, call: Callable[[_Request], _Answer], request: _Request) -> _Answer:
        return self._carry(lambda: call(request))

    def _carry(self, call: Callable[[], _Answer]) -> _Answer:
        """Return what a call does, its faults in our terms; a dropped connection is tried twice."""
        try:
            try:
                return call()
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                # A connection that was kept is closed by the other side just as it is used.
                return call()
        except httpx.TransportError as error:
            raise self._unreached(error) from error
        except httpx.HTTPStatusError as error:
            raise self._answered(error) from error

    def _unreached(self, error: httpx.TransportError) -> LinkError:
        text = str(error)
        if "CERTIFICATE_VERIFY_FAILED" in text:
            why = text.rpartition("CERTIFICATE_VERIFY_FAILED]")[2].partition("(_ssl")[0].strip()
            return RefusedError(
                f"{self._address} is not the server that federation.ca vouches for ({why}): give "
                "the authority's file that came with the bundle; if a certificate is not yet "
                "valid or has expired, look at this device's clock"
            )
        if isinstance(self._verify, ssl.SSLContext) and ("SSL" in text or "TLS" in text):
            return RefusedError(f"{self._address} does not speak TLS as it should ({text})")
        return AwayError(f"{self._address} cannot be reached ({text or type(error).__name__})")

    def _answered(self, error: httpx.HTTPStatusError) -> LinkError:
        status, code = error.response.status_code, _code_of(error)
        if status in AWAY:
            return AwayError(f"{self._address} answers {status}: SuperLink is not there")
        if status == 401:
            ahead = self._identity.ahead_s
            if not -BEHIND_S < ahead < AHEAD_S:
                where = "ahead of" if ahead > 0 else "behind"
                return RefusedError(
                    f"this device's clock is {abs(ahead):.0f} s {where} the server's: it takes "
                    f"nothing that is over {AHEAD_S} s ahead or {BEHIND_S} s behind; set the time",
                    clock=True,
                )
            return RefusedError("the server does not know this node's key (any more)")
        if code == NOT_ACTIVATED:
            return RefusedError(
                "the server does not let this node's key in: it was not enrolled yet, was revoked "
                "(runout-server enrol NODE makes a new one), or another node has it, too"
            )
        if code == NO_REGISTRATION:
            return RefusedError(
                "the server takes enrolled nodes alone: give federation.key (runout-agent join)"
            )
        if code == VERSION_APART:
            return RefusedError(
                f"the server's Flower is too far from this device's, {package_version}: update "
                "the older of the two"
            )
        if status == 403 and code is not None:
            return OverError("the run has ended")
        said = error.response.text[:200]
        return RefusedError(f"{self._address} answers {status}: {said or error}")


def _code_of(error: BaseException | None) -> int | None:
    if not isinstance(error, httpx.HTTPStatusError):
        return None
    try:
        told = msgspec.json.decode(error.response.content)
    except msgspec.DecodeError:
        return None
    code = told.get("code") if isinstance(told, dict) else None
    return code if isinstance(code, int) else None
