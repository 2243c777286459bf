"""What can be said about model, adapter, data, clients and training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from airtune.config import Config

Task = Literal["classification", "causal"]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class ModelConfig(Config):
    """The pretrained backbone, frozen in every round."""

    name: str | None = Field(
        None, description="hub name or local path; default: the packaged encoder or tiny decoder"
    )
    pooling: Literal["auto", "mean", "cls", "last", "native"] = Field(
        "auto",
        description="how a classifier reads the encoder; auto: a sentence encoder's own pooling, "
        "else the checkpoint's own classification head (native)",
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the frozen weights; adapters and heads are float32 always"
    )
    layers: PositiveInt | None = Field(
        None,
        description="use only so many layers, from the bottom: a smaller model for weak devices",
    )
    prototypes: PositiveInt | None = Field(
        None,
        description="a frozen head instead of one that trains and travels: each class' mean among "
        "so many labelled examples, which everybody has and no client learns from",
    )
    max_tokens: int = Field(128, ge=8, description="longer texts are cut to this many tokens")


class AdapterConfig(Config):
    """What is trained and travels, beside a head.

    ``lora`` and ``ia3`` are peft's; ``bottleneck`` are Houlsby's small networks, which may stand
    beside LoRA; ``blocks`` trains all weights of the last layers.
    """

    kind: Literal["lora", "ia3", "bottleneck", "lora+bottleneck", "blocks"] = "lora"
    rank: PositiveInt = Field(8, description="of LoRA")
    alpha: PositiveFloat = Field(16, description="of LoRA, whose products count alpha / rank")
    targets: list[str] | None = Field(
        None,
        description="names of the modules that LoRA or IA3 adapts; default: peft's choice for the "
        "model type",
    )
    bottleneck: PositiveInt | None = Field(
        None, description="width of bottleneck adapters; default: 16 for kinds that have them"
    )
    bottleneck_bias: bool | None = Field(
        None, description="whether their two maps have biases; default: true for these kinds"
    )
    top_layers: PositiveInt | None = Field(
        None,
        description="adapt only so many layers, from the top: what lies below is computed once "
        "per text and then looked up; default: all",
    )
    attention_window: PositiveInt | None = Field(
        None,
        description="of decoders: in the layers that are adapted a token sees only itself and "
        "those before it, so many in all, the first token, and each attention_stride-th; "
        "default: all before it",
    )
    attention_stride: PositiveInt | None = Field(
        None, description="beside a window: tokens 0, s, 2s ... are seen from everywhere"
    )

    @property
    def has_slots(self) -> bool:
        """Whether many clients' adapters can go through the backbone side by side."""
        return self.kind != "ia3"

    @property
    def is_peft(self) -> bool:
        """Whether peft has this kind, so that an adapter can be loaded with it."""
        return self.kind in ("lora", "ia3")

    @property
    def has_lora(self) -> bool:
        """Whether there are factors of low rank."""
        return self.kind in ("lora", "lora+bottleneck")

    @property
    def has_bottleneck(self) -> bool:
        """Whether there are bottleneck adapters."""
        return self.kind in ("bottleneck", "lora+bottleneck")

    @model_validator(mode="before")
    @classmethod
    def _width(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "bottleneck" in str(values.get("kind")):
            usual = {"bottleneck": 16, "bottleneck_bias": True}
            return {**values, **{k: v for k, v in usual.items() if values.get(k) is None}}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.top_layers is not None and self.kind == "ia3":
            raise ValueError("top_layers does not work with kind: ia3; leave one of the two out.")
        if self.top_layers is None and self.kind == "blocks":
            raise ValueError(
                "kind: blocks trains the last top_layers layers; say how many, such as "
                "top_layers: 2."
            )
        if self.attention_stride is not None and self.attention_window is None:
            raise ValueError(
                "attention_stride is what is seen outside a window; give attention_window too, "
                "such as 64, or leave it out."
            )
        if self.targets is not None and self.kind in ("bottleneck", "blocks"):
            raise ValueError(
                f"targets are the maps that LoRA or IA3 adapts, and kind: {self.kind} has "
                "neither; leave targets out, or use lora+bottleneck."
            )
        for key in ("bottleneck", "bottleneck_bias"):
            if getattr(self, key) is not None and not self.has_bottleneck:
                raise ValueError(
                    f"{key} is for kinds bottleneck and lora+bottleneck, not for {self.kind}; "
                    "leave it out, or use one of these kinds."
                )
        return self


class DataConfig(Config):
    """Where the texts are, and which columns mean what.

    ``label`` makes the task classification; ``response`` makes it instruction tuning with loss on
    the response; ``chosen`` and ``rejected`` make examples pairs for methods that learn from
    preferences; ``prompt`` alone leaves the answers to methods that generate them; none of them
    makes it plain language modelling of ``text``.
    """

    name: str = Field("netops", description="embedded task or hub name; a title if train is given")
    train: str | None = Field(None, description="CSV, JSONL or Parquet file (.gz too)")
    test: str | None = Field(None, description="likewise; default: a tenth of train")
    subset: str | None = Field(None, description="configuration of a hub data set, such as sst2")
    text: str = "text"
    label: str | None = Field(None, description="default: 'label' where that column exists")
    prompt: str | list[str] | None = Field(None, description="column(s) of the instruction")
    response: str | None = Field(None, description="column of the answer to learn")
    chosen: str | None = Field(
        None,
        description="column of the preferred answer; without prompt chosen and rejected are whole "
        "dialogues, and what they share is the prompt",
    )
    rejected: str | None = Field(None, description="column of the answer that it is preferred to")
    classes: PositiveInt | list[str] | None = Field(
        None,
        description="number of integer labels, or all labels by name; default: those in the data",
    )
    train_limit: PositiveInt | None = Field(None, description="use only so many training rows")
    test_limit: PositiveInt | None = Field(None, description="use only so many test rows")
    public: str | None = Field(
        None, description="file of texts that everybody has, for methods that distil; no labels"
    )
    public_rows: PositiveInt | None = Field(
        None,
        description="without such a file: so many rows of train, taken from no client and without "
        "labels; default: 500, at most a quarter, if the method needs them. With one: so many of "
        "its rows",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.chosen is None) != (self.rejected is None):
            raise ValueError("chosen and rejected go together: name both columns or neither.")
        if self.chosen is not None and (self.label is not None or self.response is not None):
            raise ValueError("chosen (preferences) and label or response exclude another.")
        if self.prompt is None and self.response is not None:
            raise ValueError("prompt and response go together: name the prompt's column too.")
        if self.response is not None and self.label is not None:
            raise ValueError("label (classification) and response (instructions) exclude another.")
        if isinstance(self.classes, list) and len(set(self.classes)) < max(len(self.classes), 2):
            raise ValueError("classes are two names or more, each once.")
        if self.label is not None and self.prompt is not None:
            raise ValueError("label (classification) and prompt exclude another.")
        return self


class ClientsConfig(Config):
    """Who holds which part of the data."""

    count: PositiveInt = 10
    per_round: PositiveInt | None = Field(None, description="chosen each round; default: all")
    selection: Literal[
        "random", "round-robin", "best-channel", "proportional-fair", "deadline-feasible"
    ] = Field(
        "random",
        description="who is chosen: the best links; the best relative to what each had; or at "
        "random those whose computing and smallest upload meet the deadline",
    )
    fairness_rounds: float = Field(
        10.0, ge=1, description="rounds over which proportional-fair averages a client's rate"
    )
    partition: Literal["iid", "dirichlet", "column", "groups", "quantity"] = Field(
        "dirichlet",
        description="column: one client per value of it; groups: a column's values dealt out over "
        "count clients",
    )
    alpha: PositiveFloat = Field(0.5, description="Dirichlet concentration; small is uneven")
    column: str | None = Field(None, description="what partition column or groups goes by")
    test_fraction: Fraction = Field(0.1, description="of a client's rows, for personal accuracy")
    tested: PositiveInt = Field(
        200, description="clients whose personal accuracy is measured, drawn once; at most"
    )
    global_texts: NonNegativeInt = Field(
        0,
        description="texts of the global test set on which these clients' own models are tried "
        "too, the same for all: what personal tuning forgets",
    )
    models: tuple[ModelConfig, ...] = Field(
        (),
        description="models of unequal clients, for methods that allow it: client i has number i "
        "mod count; default: all have the section model",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.per_round is not None and self.per_round > self.count:
            raise ValueError(
                f"per_round is {self.per_round} but there are {self.count} clients: "
                "lower per_round or raise count."
            )
        if (self.partition in ("column", "groups")) != (self.column is not None):
            raise ValueError("partition: column or groups and the column's name go together.")
        return self

    @property
    def asked(self) -> int:
        """Clients that are asked in a round."""
        return self.per_round or self.count


class ServerConfig(Config):
    """The server's own model, for methods that train one there; default: as the clients'."""

    model: ModelConfig | None = None
    adapter: AdapterConfig | None = None


class TrainConfig(Config):
    """Rounds and what a client does in one."""

    rounds: PositiveInt = 8
    local_steps: PositiveInt = Field(4, description="optimiser steps per client and round")
    batch_size: PositiveInt = 16
    learning_rate: PositiveFloat = 3e-3
    head_learning_rate: PositiveFloat = Field(
        1e-2, description="of a classification head that the checkpoint did not bring along"
    )
    optimiser: Literal["adamw", "sgd"] = "adamw"
    adam_beta2: float = Field(
        0.999, ge=0.0, lt=1.0, description="memory of adamw for squared gradients"
    )
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    clip_norm: PositiveFloat | None = Field(1.0, description="per client; null: no clipping")
    evaluate_every: PositiveInt = Field(2, description="rounds between evaluations")


class MachineConfig(Config):
    """The computer that simulates; nothing here changes a result beyond the last digits."""

    device: str = Field("auto", description="cpu, cuda, cuda:1 ...; auto: cuda when present")
    cohort: PositiveInt | None = Field(
        None,
        description="clients trained side by side; default: as many as the first rounds show to "
        "be fastest",
    )
    prefix_cache_gb: float = Field(
        2.0,
        ge=0.0,
        description="memory for hidden states below the first trained layer (adapter.top_layers); "
        "what does not fit is mapped from a file below TMPDIR; 0: compute them every time",
    )
    compile: bool = Field(
        False,
        description="compile the model by torch.compile: about a minute at first, then faster "
        "where steps are small",
    )
    client_states_gb: float = Field(
        1.0, ge=0.0, description="memory for what clients keep between rounds; the rest in files"
    )
    threads: PositiveInt | None = Field(None, description="CPU threads; default: torch's choice")
    checkpoint_every: PositiveInt = Field(1, description="rounds between checkpoints")

    @field_validator("device")
    @classmethod
    def _known(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
            raise ValueError(f"'{value}' is no device; valid are auto, cpu, cuda, cuda:N, mps.")
        return value
