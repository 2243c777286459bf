"""The ClientApp of flower_entry, in a module of its own.

Flower pickles the app into every message to an actor: functions of an importable module go by
name, those of a script would go with all their code. And what a module caches lives as long as
the actor's process does, so each actor reads the workload and builds the model only once.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from benchmarks.speed.peers.local import Local

app = ClientApp()


@lru_cache(maxsize=1)
def local(folder: str) -> Local:
    return Local(Path(folder))


@app.train()
def train(message: Message, context: Context) -> Message:
    config = message.content["config"]
    own = local(str(config["folder"]))
    client, round = int(context.node_config["partition-id"]), int(config["server-round"]) - 1
    loss = own.train(message.content["arrays"].to_torch_state_dict(), round, client)
    trained = ArrayRecord({name: parameter.detach() for name, parameter in own.names.items()})
    metrics = MetricRecord({"loss": loss, "num-examples": own.spec["rows"]})
    return Message(RecordDict({"arrays": trained, "metrics": metrics}), reply_to=message)
