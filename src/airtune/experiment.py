"""The description of one run: read, validated, resolved, written back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import (
    BaseModel,
    Field,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)

from airtune.config import Config
from airtune.errors import UserError, nearest
from airtune.federation.secure.config import SecurityConfig
from airtune.learning.config import (
    AdapterConfig,
    ClientsConfig,
    DataConfig,
    MachineConfig,
    ModelConfig,
    ServerConfig,
    TrainConfig,
)
from airtune.radio.config import CellConfig


class Experiment(Config):
    """Everything that determines a run; every key has a default, the shortest is ``{}``."""

    name: str = Field("quickstart", description="title, and the run's folder below runs/")
    model: ModelConfig = ModelConfig()
    adapter: AdapterConfig = AdapterConfig()
    server: ServerConfig = ServerConfig()
    data: DataConfig = DataConfig()
    clients: ClientsConfig = ClientsConfig()
    cell: CellConfig = Field(CellConfig.model_validate("urban-micro"), description="the radio")
    method: SerializeAsAny[Any] = Field("fedavg", description="the federated system, by name")
    train: TrainConfig = TrainConfig()
    security: SecurityConfig = SecurityConfig()
    machine: MachineConfig = MachineConfig()
    seed: int = Field(0, ge=0, lt=2**31)
    versions: dict[str, str] = Field({}, description="written by a run; no effect when read")

    def __init__(self, **values: Any) -> None:
        """Validate ``values``; raise UserError with one sentence where they are wrong."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UserError(explain(error, type(self))) from error

    @field_validator("name")
    @classmethod
    def _usable_as_folder(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", value):
            raise ValueError("a name has letters, digits, '.', '_' and '-' only")
        return value

    @field_validator("method", mode="before")
    @classmethod
    def _find_method(cls, value: Any) -> Any:
        # Imported here: method files import torch, which --help must not wait for.
        from airtune.methods.method import MethodConfig
        from airtune.methods.registry import find

        if isinstance(value, MethodConfig):
            return value
        options = {"name": value} if isinstance(value, str) else value
        if not isinstance(options, Mapping) or not isinstance(options.get("name", "fedavg"), str):
            raise ValueError("give a method's name, or a mapping with its name and options")
        options = {"name": "fedavg", **options}
        config = find(options["name"]).Config
        try:
            return config.model_validate(options)
        except ValidationError as error:
            raise UserError(explain(error, config, "method")) from error

    @model_validator(mode="after")
    def _cross_check(self) -> Experiment:
        unlabelled = self.data.response is not None or self.data.chosen is not None
        if unlabelled and self.clients.partition == "dirichlet":
            kind = "instruction" if self.data.chosen is None else "preference"
            raise ValueError(
                f"clients.partition: dirichlet needs labels, and {kind} data has none; "
                "use iid, quantity, column or groups"
            )
        self._check_scheduling()
        self._check_security()
        return self

    def _check_scheduling(self) -> None:
        rule, cell = self.clients.selection, self.cell
        if cell.ideal and rule not in ("random", "round-robin"):
            raise ValueError(
                f"clients.selection: {rule} goes by links, and an ideal cell has none; use random "
                "or round-robin"
            )
        if cell.measured and rule in ("proportional-fair", "deadline-feasible"):
            raise ValueError(
                f"clients.selection: {rule} shares out a band, and measured links have none; use "
                "random, round-robin or best-channel"
            )
        if rule == "deadline-feasible" and cell.deadline_s is None:
            raise ValueError(
                "clients.selection: deadline-feasible needs a deadline; set cell.deadline_s"
            )
        asked = self.clients.asked
        in_blocks = cell.allocation in ("resource-blocks", "best-blocks")
        if in_blocks and asked > cell.blocks and not cell.ideal:
            raise ValueError(
                f"cell.allocation: {asked} clients a round cannot share the {cell.blocks} resource "
                "blocks of cell.bandwidth_hz; lower clients.per_round"
            )

    def changed(self, overrides: Iterable[str]) -> Experiment:
        """Return the experiment with ``key.sub=value`` overrides; raise UserError where wrong.

        Everything else stays as it is resolved: another preset would change nothing.
        """
        values = self.model_dump(mode="json")
        for override in overrides:
            _apply(values, override)
        return Experiment(**values)

    def _check_security(self) -> None:
        asked = self.clients.asked
        needed = self.security.needed(asked)
        if not self.security.secure_sum:
            return
        if asked < 3:
            raise ValueError(
                f"security.secure_sum: the sum of {asked} clients shows each what the others sent; "
                "ask at least 3 a round"
            )
        if not max(asked / 2, 2) < needed <= asked:
            raise ValueError(
                f"security.threshold: it is {needed}, and of {asked} clients asked in a round more "
                "than half have to stay, at least 3, and no more than there are"
            )

    def result_keys(self) -> dict[str, Any]:
        """Return what determines the results: all but the machine, the title and versions."""
        return self.model_dump(mode="json", exclude={"machine", "versions", "name"})

    def to_yaml(self) -> str:
        """Return the resolved experiment; reading it back gives an equal one."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read_experiment(path: str | Path, overrides: Iterable[str] = ()) -> Experiment:
    """Read a YAML file and apply ``key.sub=value`` overrides; raise UserError where wrong."""
    file = Path(path)
    if not file.is_file():
        raise UserError(f"there is no experiment file '{path}'.")
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or "not text"
        raise UserError(f"'{path}'{line}: this is not YAML ({problem}).") from error
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise UserError(
            f"'{path}': an experiment is a mapping of keys, not a {type(values).__name__}."
        )
    for override in overrides:
        _apply(values, override)
    odd = next((key for key in values if not isinstance(key, str)), None)
    if odd is not None:
        raise UserError(
            f"{odd}: there is no such key; {nearest(str(odd), Experiment.model_fields)}"
        )
    return Experiment(**values)


# Sections that may be written as one word: the key which that word stands for.
_SHORTHANDS = {"cell": "preset", "method": "name"}


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise UserError(f"--set {override}: write key=value or section.key=value.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override}: the value cannot be read.") from error
    node = values
    for depth, part in enumerate(path[:-1]):
        inner = node.get(part)
        if isinstance(inner, str) and depth == 0 and part in _SHORTHANDS:
            inner = {_SHORTHANDS[part]: inner}
        if inner is not None and not isinstance(inner, dict):
            raise UserError(f"--set {override}: '{'.'.join(path[: depth + 1])}' has no keys below.")
        node[part] = node = dict(inner or {})
    node[path[-1]] = value


def explain(error: ValidationError, model: type[BaseModel], section: str = "") -> str:
    """Return one sentence for the first problem that pydantic found."""
    problem = _most_telling(error.errors())
    where = _keys(problem)
    path = ".".join([section, *where] if section else where)
    if problem["type"] == "missing":
        return f"{path}: this key is missing."
    if problem["type"] == "extra_forbidden":
        owner = _section_at(model, where[:-1])
        return f"{path}: there is no such key; {nearest(where[-1], owner.model_fields)}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in ("value_error", "assertion_error"):
        prefix = "" if message.startswith(f"{path.split('.')[0]}.") or not path else f"{path}: "
        return f"{prefix}{message}" if message.endswith("?") else f"{prefix}{message.rstrip('.')}."
    shown = repr(problem["input"])
    shown = shown if len(shown) < 60 else shown[:57] + "..."
    return f"{path}: {message[0].lower()}{message[1:]}, but it is {shown}."


def _most_telling(problems: Sequence[Any]) -> Any:
    """Return the first problem; of a union's branches the one that the value was meant for.

    That is a branch which takes values of this kind, and says what is wrong with this one.
    """
    first = _keys(problems[0])
    about = [each for each in problems if _keys(each)[: len(first)] == first]
    other = ("_type", "_parsing", "literal_error")
    return next((each for each in about if not each["type"].endswith(other)), problems[0])


def _keys(problem: Any) -> list[str]:
    return [str(part) for part in problem["loc"] if not _is_branch(part)]


def _is_branch(part: Any) -> bool:
    """Return whether a location names a union's branch, not a key.

    Such as 'literal[...]' or 'list[str]', or a class, which begins with a capital as no key does.
    """
    return isinstance(part, str) and (
        "[" in part or part in ("str", "int", "float", "constrained-float") or part[:1].isupper()
    )


def _section_at(model: type[BaseModel], path: list[str]) -> type[BaseModel]:
    for part in path:
        field = model.model_fields.get(part)
        annotation = None if field is None else field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return model
