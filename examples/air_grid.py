"""An existing Flower app over a cell: python examples/air_grid.py (needs airtune[flower])."""

import random

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from airtune.flower import AirGrid, Cell, CellConfig, LocalGrid, tell_partition

CLIENTS = 8
client_app = tell_partition(ClientApp())  # the one line that the app did not have


@client_app.train()
def train(message, context):
    """Fit a line through the points of this partition: one step of gradient descent."""
    rng = np.random.default_rng(int(context.node_config["partition-id"]))
    x = rng.normal(size=(100, 1000))
    (weights,) = message.content["arrays"].to_numpy_ndarrays()
    weights = weights - 0.02 * x.T @ (x @ (weights - 1.0)) / len(x)
    told = MetricRecord({"num-examples": len(x), "compute-seconds": 0.2})
    return Message(RecordDict({"arrays": ArrayRecord([weights]), "m": told}), reply_to=message)


if __name__ == "__main__":
    random.seed(0)  # Flower samples nodes by it
    # On a SuperLink, main(grid, context) of the ServerApp is given a grid; here is one without.
    cell = Cell(CellConfig(preset="urban-macro", bandwidth_hz=2e6, deadline_s=0.5), CLIENTS, seed=0)
    air = AirGrid(LocalGrid(client_app, CLIENTS), cell)
    strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=CLIENTS)
    strategy.start(air, ArrayRecord([np.zeros(1000)]), num_rounds=5)
    print(air.history[["round", "asked", "delivered", "total_uplink_bits", "total_seconds"]])
    print(air.uploads.groupby("status")[["seconds", "joules"]].sum())
