"""A learner of a random model that can be taught to say something else."""

import pytest
import torch

from airtune.learning.adapter import AdaptedModel
from airtune.learning.backbone import load_backbone
from airtune.learning.config import AdapterConfig, MachineConfig, ModelConfig, TrainConfig
from airtune.learning.learner import Learner


@pytest.fixture(scope="session")
def talker(tiny_talker):
    """A learner that knows the words of the built-in topics."""
    backbone = load_backbone(ModelConfig(name=tiny_talker), "causal", None, torch.device("cpu"))
    model = AdaptedModel(backbone, AdapterConfig(rank=4), "causal", seed=0)
    return Learner(model, TrainConfig(learning_rate=3e-2), 0, MachineConfig(cohort=3))


@pytest.fixture
def moved(talker):
    """Function that returns an adapter which changes what the talker says, by a number."""

    def adapter(number):
        draw = torch.Generator().manual_seed(number)
        return {
            name: tensor + 0.1 * torch.randn(tensor.shape, generator=draw)
            for name, tensor in talker.model.initial.items()
        }

    return adapter
