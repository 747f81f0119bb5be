"""Asks each node the same, and writes down what it answers: ``answers.json``, ``arrays.npz``."""

import json
import threading
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()
KINDS = ("train", "train", "query.fail", "query.refuse", "query.unheard", "query.status")
BIG = 3_000_000
"""Numbers of eight bytes, in several of Flower's pieces."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    out = Path(str(context.run_config["out"]))
    pause = threading.Event().wait
    while len(nodes := list(grid.get_node_ids())) < int(context.run_config["nodes"]):
        pause(0.1)
    sent = []
    for node in nodes:
        for number, kind in enumerate(KINDS):
            values = np.arange(BIG if number == 1 else 5, dtype=np.float64) + number
            content = RecordDict({"arrays": ArrayRecord({"values": Array(values)})})
            sent.append(Message(content, dst_node_id=node, message_type=kind))
    asked = list(grid.push_messages(sent))
    order = {number: i for i, number in enumerate(asked)}
    answers, arrays = {}, {}
    while len(answers) < len(asked):
        for reply in grid.pull_messages([one for one in asked if one not in answers]):
            number = reply.metadata.reply_to_message_id
            place = f"{sent[order[number]].metadata.dst_node_id}/{order[number] % len(KINDS)}"
            said: dict[str, object] = {"place": place}
            if reply.has_error():
                said |= {"code": reply.error.code, "reason": reply.error.reason}
            else:
                for record in reply.content.config_records.values():
                    said |= record
                for record in reply.content.array_records.values():
                    arrays[place] = record["values"].numpy()
            answers[number] = said
        pause(0.1)
    np.savez(out / "arrays.npz", **arrays)
    text = json.dumps({str(one.pop("place")): one for one in answers.values()})
    (out / "answers.part").write_text(text, encoding="utf-8")
    (out / "answers.part").rename(out / "answers.json")
