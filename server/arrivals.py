"""What nodes answer in one phase: each answer is read, judged and used as it comes, and let go.

So a phase holds no more than what its use of the answers keeps, however many nodes there are.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from flwr.app import RecordDict

from contract.errors import ContractError
from contract.topics import check_name
from contract.update import Update
from server import messages


@dataclass(slots=True)
class Arrivals:
    """The answers of one phase.

    Attributes:
        names: node id to name; completed by what arrives.
        judge: returns what speaks against an update, in words.
        use: called with each update that nothing speaks against.
        accepted: whose answer was used, in the order of arrival.
        refused: whose was not, and why.
    """

    names: dict[int, str]
    judge: Callable[[Update], list[str]]
    use: Callable[[int, Update], None]
    accepted: list[int] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    _claimed: dict[str, int] = field(default_factory=dict)

    def take(self, node_id: int, content: RecordDict) -> None:
        """Take one answer."""
        try:
            update = read_update(content)
        except ContractError as error:
            self.refused[node_id] = str(error)
            return
        name = update.head.node
        if self._claimed.setdefault(name, node_id) != node_id:
            self.refused[node_id] = f"calls itself {name!r} as another node does"
            return
        self.names[node_id] = name
        against = self.judge(update)
        if against:
            self.refused[node_id] = "; ".join(against)
            return
        self.use(node_id, update)
        self.accepted.append(node_id)

    def refuse(self, node_id: int, why: str) -> None:
        """Leave out somebody whose answer was taken."""
        self.accepted.remove(node_id)
        self.refused[node_id] = why


def read_update(content: RecordDict) -> Update:
    """Read an answer whose node has a name that can be the name of a file."""
    update = messages.read_update(content)
    try:
        check_name(update.head.node, "node")
    except ValueError as error:
        raise ContractError(str(error)) from error
    return update
