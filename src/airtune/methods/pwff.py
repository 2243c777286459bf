"""PWFF: personal tuning and alignment; adapters are shared, LoRA and preferences are not."""

from __future__ import annotations

from typing import ClassVar

from airtune.methods.aligning import Aligning
from airtune.methods.alignment_options import AligningConfig
from airtune.methods.method import MethodConfig
from airtune.methods.pftt import Pftt, PfttConfig


class PwffConfig(PfttConfig, AligningConfig):
    """Options of PWFF: those of PFTT, and those of alignment."""


class Pwff(Aligning, Pftt):
    """PFTT's sharing, first for instruction tuning and then for alignment with two objectives.

    ``L_n = g_n l_help + (1 - g_n) l_safe + (mu / 2) ||phi - phi_g||^2`` over the shared phi and the
    private theta_n; the server averages phi. g_n is the client's preference, or what the two
    gradients say (``weights``).

    Source: arXiv 2404.13238 v2. FOUND: two reward models, a personalised loss, a local
    multi-objective alignment, aggregation of a part of the parameters. DERIVED: losses, weights,
    stages and what is shared in the second. GRPO stands for the paper's PPO unless ``algorithm``
    says ppo.
    """

    Config: ClassVar[type[MethodConfig]] = PwffConfig
