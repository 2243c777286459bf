"""For existing Flower apps: a grid whose messages go through a cell of ours.

    from airtune.flower import AirGrid, Cell, CellConfig

    @app.main()
    def main(grid, context):
        air = AirGrid(grid, Cell(CellConfig(preset="urban-micro"), clients=20, seed=0))
        FedAvg().start(air, initial_arrays)
        print(air.history)

Needs the extra ``flower``, and neither torch nor a method of ours.
"""

from __future__ import annotations

try:
    import flwr  # noqa: F401
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError("airtune.flower needs Flower: install airtune[flower].") from missing

from airtune.deploy.flower.air_grid import AirGrid
from airtune.deploy.flower.local_grid import LocalGrid
from airtune.deploy.flower.partitions import tell_partition
from airtune.deploy.flower.pushes import LOST_ON_AIR
from airtune.radio.cell import Cell
from airtune.radio.config import CellConfig

__all__ = ["LOST_ON_AIR", "AirGrid", "Cell", "CellConfig", "LocalGrid", "tell_partition"]
