"""The app that the tests of AirGrid run."""

from __future__ import annotations

import pytest


@pytest.fixture
def app():
    """An app that adds its partition's number plus one, and the list of who trained."""
    from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp

    from airtune.flower import tell_partition

    made, trained = tell_partition(ClientApp()), []

    @made.train()
    def train(message, context):
        client = int(context.node_config["partition-id"])
        trained.append(client)
        (weights,) = message.content["arrays"].to_numpy_ndarrays()
        told = MetricRecord({"num-examples": 10 * (client + 1)})
        if "slow" in message.content.get("config", {}):
            told["compute-seconds"] = message.content["config"]["slow"] * (client == 2)
        content = RecordDict({"arrays": ArrayRecord([weights + client + 1.0]), "told": told})
        return Message(content, reply_to=message)

    @made.train("fail")
    def fail(message, context):
        raise RuntimeError("boom")

    made.trained = trained
    return made
