"""What can be said about alignment with two rewards."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from airtune.config import Config
from airtune.errors import UserError
from airtune.learning.alignment.learned_rewards import LearnedRewardsConfig
from airtune.learning.alignment.losses import Scale
from airtune.learning.alignment.two_losses import Rule
from airtune.methods.fedprox import FedProxConfig
from airtune.methods.views import Setup

Weight = Annotated[float, Field(ge=0.0, le=1.0)]


class AnswersConfig(Config):
    """The answers that a client learns from in one step."""

    prompts: PositiveInt = Field(6, description="of the client's own, drawn anew for each step")
    samples: int = Field(8, ge=2, description="answers to each prompt")
    tokens: PositiveInt = Field(32, description="of an answer, at most")
    temperature: PositiveFloat = 1.0
    epochs: PositiveInt = Field(1, description="optimiser steps on each step's answers")


class ExaminedConfig(Config):
    """The answers to test prompts that models are judged by."""

    prompts: PositiveInt = Field(64, description="of the test set, drawn once, at most")
    samples: PositiveInt = 6
    tokens: PositiveInt = 40


class AligningConfig(FedProxConfig):
    """Options of alignment; symbols as in the specification."""

    proximal: NonNegativeFloat = Field(
        0.0, description="mu, weight of the squared distance of what is shared to the broadcast"
    )
    distance: Literal["loss", "reward"] = Field(
        "loss", description="where that distance counts; in the reward it has no gradient"
    )
    preferences: list[Weight] = Field(
        [0.0, 0.25, 0.5, 0.75, 1.0],
        min_length=1,
        description="a_n, a client's weight of helpful answers against safe ones; client i has "
        "number i mod count",
    )
    trains_for: Literal["own"] | Weight = Field(
        "own",
        description="the weight that clients learn with: their own; or one for all, such as 0.5, "
        "while each is judged by its own",
    )
    rewards: Literal["caring", "harmless"] | LearnedRewardsConfig | None = Field(
        "caring",
        description="what judges answers: a built-in pair of objectives for data.name topics; two "
        "rewards learned from pairs (helpful and safe, a section each); null: with dpo, the data's "
        "own order of answers",
    )
    algorithm: Literal["grpo", "ppo", "dpo"] = Field(
        "grpo", description="policy optimisation without or with a critic; or learning from pairs"
    )
    weights: Rule = Field(
        "fixed",
        description="of the two objectives: the client's own; its own for what is private and "
        "common_weight for what is shared (split); or by their gradients (mgda, anchored at its "
        "own)",
    )
    common_weight: Weight = Field(0.5, description="of split, for what is shared")
    kappa: NonNegativeFloat = Field(
        1.0, description="of anchored, relative to the mean squared gradient"
    )
    equal_length: bool = Field(
        False, description="stretch the gradient of mgda and anchored to that of the fixed weight"
    )
    kl: NonNegativeFloat = Field(0.05, description="beta_kl: in grpo's loss, in ppo's reward")
    clip: PositiveFloat = Field(0.2, description="epsilon of the probability ratio")
    entropy: NonNegativeFloat = Field(0.0, description="c_e, weight of the policy's entropy")
    scale: Scale = Field("batch", description="of grpo's advantages: whose deviation divides them")
    gae: Weight = Field(
        1.0,
        description="lambda of ppo's advantages; below 1 they lean on the critic's values, which "
        "are rough after one step's answers",
    )
    dpo_beta: PositiveFloat = Field(0.1, description="b, of dpo")
    answers: AnswersConfig = AnswersConfig()
    examined: ExaminedConfig = ExaminedConfig()
    tuning_rounds: NonNegativeInt = Field(
        0, description="rounds of instruction tuning on given answers before the alignment"
    )


def check(config: AligningConfig, setup: Setup) -> None:
    """Raise UserError where options or data lack what the algorithm learns from."""
    pairs = setup.texts.sequences == 2
    if config.algorithm == "dpo" and not pairs:
        raise UserError(
            "method.algorithm: dpo learns from pairs of answers; name their columns as "
            "data.chosen and data.rejected, or use grpo."
        )
    if config.rewards is None and config.algorithm != "dpo":
        raise UserError(
            f"method.rewards: {config.algorithm} needs something that judges answers; name "
            "rewards, or use dpo on pairs."
        )
    if config.rewards is None and config.weights in ("mgda", "anchored"):
        raise UserError(
            f"method.weights: {config.weights} weighs two objectives, and without rewards the "
            "data's order of answers is the only one; use fixed, or name rewards."
        )
    if config.algorithm == "ppo" and config.weights != "fixed":
        raise UserError(
            "method.weights: ppo has one critic, of a client's own mixture; use weights: "
            "fixed, or grpo."
        )
    if config.algorithm == "dpo" and config.distance == "reward" and config.proximal:
        raise UserError(
            "method.distance: dpo has no reward that a distance could count in; use loss."
        )
    if config.tuning_rounds and setup.per_round < len(setup.examples):
        raise UserError(
            "method.tuning_rounds: each client holds to its model at the end of tuning, which "
            "those who are not asked then would lack; let clients.per_round be all, or tune in "
            "a run of its own."
        )
    corpus = setup.texts.corpus
    if config.tuning_rounds and not (corpus.targets < corpus.lengths).all():
        raise UserError(
            "method.tuning_rounds: instruction tuning learns given answers, and the data has "
            "prompts alone; give 0, or name the answers' column."
        )
