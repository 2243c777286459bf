"""A finished or unfinished run, read from its directory."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airtune.errors import UserError
from airtune.experiment import Experiment, read_experiment

if TYPE_CHECKING:
    import pandas as pd

    from airtune.federation.costs import Costs
    from airtune.learning.adapter import Adapter
    from airtune.report.view import RunView

_PREFIX = "base_model.model."


class Run:
    """One run directory: its experiment, ledger, summary and adapter."""

    def __init__(self, path: str | Path) -> None:
        """Read lazily; raise UserError if the directory is not a run's."""
        self.path = Path(path)
        for file in ("experiment.yaml", "ledger.jsonl"):
            if not (self.path / file).is_file():
                raise UserError(f"'{path}' is not a run directory: it has no {file}.")

    @cached_property
    def experiment(self) -> Experiment:
        """The resolved experiment."""
        return read_experiment(self.path / "experiment.yaml")

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per round with its scores, costs and running totals (``total_...``)."""
        from airtune.federation import ledger

        return ledger.history(self._rows)

    @cached_property
    def uploads(self) -> pd.DataFrame:
        """One row per client and round that was asked for an upload."""
        from airtune.federation import ledger

        return ledger.uploads(self._rows)

    @cached_property
    def costs(self) -> Costs:
        """What its rounds cost, as ``airtune plan`` says it beforehand."""
        from airtune.federation.costs import Costs
        from airtune.federation.records import as_row

        return Costs.of([as_row(row) for row in self._rows])

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The run in a few figures; raises UserError while the run is unfinished."""
        path = self.path / "summary.json"
        if not path.is_file():
            raise unfinished(self.path)
        try:
            summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"'{path}' is damaged: {error}.") from error
        return summary

    @cached_property
    def adapter(self) -> Adapter:
        """The server's learned adapter: tensors by name."""
        from safetensors.torch import load_file

        # peft's file, or that of kinds which peft does not have.
        names = "adapter_model.safetensors", "adapter.safetensors"
        paths = [self.path / "adapter" / name for name in names]
        path = next((each for each in paths if each.is_file()), None)
        if path is None:
            raise unfinished(self.path)
        return {name.removeprefix(_PREFIX): value for name, value in load_file(path).items()}

    def view(self) -> RunView:
        """Return the run as the reports see it."""
        from airtune.report.view import RunView

        text = (self.path / "experiment.yaml").read_text(encoding="utf-8")
        return RunView(self.path.resolve().name, self.history, self.uploads, self.summary, text)

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        from airtune.federation import ledger

        try:
            rows = ledger.read(self.path / "ledger.jsonl")
        except ValueError as error:
            raise UserError(f"'{self.path / 'ledger.jsonl'}' is damaged: {error}.") from error
        if not all(isinstance(row, dict) and "row" in row for row in rows):
            raise UserError(f"'{self.path / 'ledger.jsonl'}' is damaged: a line is no ledger row.")
        if not any(row["row"] == "round" for row in rows):
            raise UserError(f"'{self.path}' has no finished round yet.")
        return rows


def unfinished(path: Path) -> UserError:
    """Return the error for a run whose result is asked for too early."""
    return UserError(f"'{path}' has not finished; continue it with airtune run --resume.")
