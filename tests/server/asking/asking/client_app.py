"""What a node that takes code from the network would answer with."""

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, _context: Context) -> Message:
    return Message(RecordDict({"from": ConfigRecord({"code": "network"})}), reply_to=message)
