"""The ClientApp: answers the server from the agent's state folder, and hands releases to it.

The folder stands in the node's configuration: ``flower-supernode --node-config 'state="..."'``.
"""

from pathlib import Path

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from contract.errors import ContractError
from contract.release import Release
from server import messages

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer with sums and weights."""
    return _answer(message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Answer with errors on held-out lives."""
    return _answer(message, context)


@app.query("status")
def status(message: Message, context: Context) -> Message:
    """Answer what this node could bring to a round, and whether it asks for one."""
    from agent.local_round import readiness  # noqa: PLC0415

    try:
        found = readiness(_state(context))
    except ContractError as error:
        return _refuse(message, error)
    return Message(messages.readiness_content(found), reply_to=message)


@app.query("deploy")
def deploy(message: Message, context: Context) -> Message:
    """Lay a release into the agent's inbox; whether it shall judge is the agent's decision."""
    from agent.rollout import deliver  # noqa: PLC0415  # a node without an agent answers an error

    try:
        release = Release.from_bytes(messages.read_release(message.content), "release")
        said = deliver(_state(context), release)
    except ContractError as error:
        return _refuse(message, error)
    return Message(messages.delivered_content(said), reply_to=message)


def _answer(message: Message, context: Context) -> Message:
    from agent.local_round import answer  # noqa: PLC0415

    try:
        request, arrays = messages.read_request(message.content)
        update = answer(_state(context), request, arrays)
    except ContractError as error:
        return _refuse(message, error)
    return Message(messages.update_content(update), reply_to=message)


def _refuse(message: Message, error: ContractError) -> Message:
    return Message(Error(messages.REFUSED, str(error)), reply_to=message)


def _state(context: Context) -> Path:
    state = context.node_config.get("state")
    if not isinstance(state, str) or not state:
        raise ContractError(
            "this node does not know its agent's state folder: start it with "
            "--node-config 'state=\"/path/to/state\"'"
        )
    return Path(state)
