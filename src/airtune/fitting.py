"""What of an experiment does not fit together, as sentences."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.learning.data.sources import Table
from airtune.learning.learner import Learner
from airtune.methods.method import Method


def check_models(experiment: Experiment, method: type[Method]) -> None:
    """Refuse unequal models where adapters travel."""
    if method.own_models:
        return
    for key, given in (
        ("clients.models", experiment.clients.models),
        ("server.model", experiment.server.model),
        ("server.adapter", experiment.server.adapter),
    ):
        if given:
            raise UserError(
                f"{key}: clients of '{experiment.method.name}' send their adapters, so all have "
                "the one model of the section model; leave it out, or name a method that distils."
            )


def check_links(experiment: Experiment) -> None:
    """Refuse measured links where there are none."""
    if experiment.cell.measured:
        raise UserError(
            "cell.measured: in one process there are no links to measure; use airtune serve, or "
            "name another cell."
        )


def check_security(experiment: Experiment, method: type[Method]) -> None:
    """Refuse masked sums where a sum is not enough, or where nothing could mask it."""
    if not experiment.security.secure_sum:
        return
    name, config = experiment.method.name, experiment.method
    if (why := _why_not_summed(method)) is not None:
        raise UserError(
            f"security.secure_sum: '{name}' cannot do with a sum of uploads, as {why}; leave it "
            "out, or name a method that averages, such as fedavg."
        )
    if getattr(config, "change_bits", None) is not None:
        raise UserError(
            "method.change_bits: rounded changes have a scale for each client and do not add up; "
            "leave it out, or set security.secure_sum=false."
        )
    if config.value_type != "float32":
        raise UserError(
            "method.value_type: numbers of a masked sum have 32 bits, and uploads are planned with "
            "that; use float32, or set security.secure_sum=false."
        )
    if find_spec("cryptography") is None or find_spec("Crypto") is None:
        raise UserError(
            "security.secure_sum: this needs the extra 'secure'; pip install 'airtune[secure]'."
        )


def _why_not_summed(method: type[Method]) -> str | None:
    """Return why a sum is not enough; a class that aggregates its own way has to say that it is."""
    lines = [vars(each) for each in method.__mro__]
    says = next(n for n, own in enumerate(lines) if "why_not_summed" in own)
    does = next(n for n, own in enumerate(lines) if "aggregate" in own)
    if says > does:
        return "its server combines them in a way of its own"
    return method.why_not_summed


def check_data(table: Table, name: str, method: type[Method]) -> None:
    """Refuse data that a method cannot learn from."""
    if table.preferences and not method.learns_preferences:
        raise UserError(
            f"data.chosen: '{name}' would learn rejected answers too; use pwff or pfit, or give "
            "the chosen ones as data.response."
        )
    if table.prompts_only and not method.answers_prompts:
        raise UserError(
            f"data: '{name}' learns given answers, and there are prompts alone; use pwff or pfit, "
            "which answer them, or name a column of answers as data.response."
        )
    if method.answers_prompts and (table.task != "causal" or not table.prompted):
        raise UserError(
            f"data: '{name}' answers prompts, and these texts have none; use data.name: topics, or "
            "name the prompts' column as data.prompt."
        )


def check_tokenizers(learners: Sequence[Learner]) -> None:
    """Refuse models whose tokens differ: their logits are about different things."""
    first, *others = (learner.model.backbone for learner in learners)
    for other in others:
        if other.tokenizer.get_vocab() != first.tokenizer.get_vocab():
            raise UserError(
                f"clients.models: '{first.name}' and '{other.name}' have different tokenizers, so "
                "their token logits cannot be combined; name models with one vocabulary."
            )


def check_lengths(limits: Sequence[int]) -> None:
    """Refuse models that cut texts at different places: they predict different tokens."""
    if len(set(limits)) > 1:
        raise UserError(
            f"model.max_tokens: models read texts up to {sorted(set(limits))} tokens, so their "
            "token logits are about different places; give all of them the smallest."
        )


def shots_asked(experiment: Experiment) -> int:
    """Return how many labelled examples of each class the models' heads are made of."""
    models = [*(experiment.clients.models or [experiment.model])]
    models.append(experiment.server.model or experiment.model)
    counts = {model.prototypes for model in models if model.prototypes is not None}
    if len(counts) > 1:
        raise UserError(
            f"model.prototypes: models ask for {sorted(counts)} examples of each class; give one "
            "number, as all know the same examples."
        )
    return counts.pop() if counts else 0
