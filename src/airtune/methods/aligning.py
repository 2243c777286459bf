"""What PFIT and PWFF have in common: two rewards, clients who weigh them, three ways to learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from airtune.errors import UserError
from airtune.learning.alignment import learned_rewards
from airtune.learning.alignment.credit import Apart, Credit, Critic, Mixture
from airtune.learning.alignment.drawing import Drawing, constants, prompt_lengths, prompts_of
from airtune.learning.alignment.examination import Examination
from airtune.learning.alignment.generation import Sampling
from airtune.learning.alignment.learned_rewards import LearnedRewards, LearnedRewardsConfig
from airtune.learning.alignment.policy import Policy, TwoRewards
from airtune.learning.alignment.preference import (
    PairwisePreference,
    preferences,
    preferred,
    with_preferences,
)
from airtune.learning.alignment.rewards import Rewards, TopicRewards, about
from airtune.learning.alignment.topics import OBJECTIVES
from airtune.learning.alignment.two_losses import TwoLosses
from airtune.learning.phase import Objective, Phase
from airtune.methods.alignment_options import AligningConfig, check
from airtune.methods.judges import SendsJudges
from airtune.methods.method import MethodConfig
from airtune.methods.views import Client, Setup, State, Work
from airtune.wire import Dense, Payload, encode

if TYPE_CHECKING:
    from torch import Tensor

    from airtune.learning.adapter import Adapter
    from airtune.learning.data.examples import Examples
    from airtune.learning.learner import Learner
    from airtune.radio.grant import Grant


class Aligning(SendsJudges):
    """Clients align what they train with their own mixture of two rewards."""

    Config: ClassVar[type[MethodConfig]] = AligningConfig
    learns_preferences: ClassVar[bool] = True
    answers_prompts: ClassVar[bool] = True
    judges: ClassVar[bool] = True

    def __init__(self, config: Any, setup: Setup) -> None:
        """Raise UserError where options or data lack what the algorithm learns from."""
        super().__init__(config, setup)
        check(config, setup)
        lengths = prompt_lengths(setup.texts)
        self._usual = float(lengths.mean())  # tokens of a prompt
        self._check_room(lengths)
        self.preferences = np.resize(config.preferences, len(setup.examples))
        self._rewards = self._judge()
        self._drawing = self._examination = None
        if self._rewards is not None:
            stop = _stop(setup.server)
            own, tested = config.answers, config.examined
            self._drawing = Drawing(
                self._rewards,
                self._credit(),
                Sampling(own.samples, own.tokens, stop, own.temperature),
                own.prompts,
                setup.seed,
                config.proximal if config.distance == "reward" else 0.0,
            )
            sampling = Sampling(tested.samples, tested.tokens, stop, own.temperature)
            self._examination = Examination(self._rewards, sampling, tested.prompts, setup.seed)

    def work(self, number: int) -> Work:
        """Return a client's work: texts while it tunes, then the answers that it draws."""
        own, steps = self.config.answers, self.setup.train.local_steps
        if number <= self.config.tuning_rounds or self.config.algorithm == "dpo":
            return Work(steps)
        assert self._drawing is not None
        rows = own.prompts * own.samples
        asked = own.prompts * self._usual
        read = own.samples * asked + rows * own.tokens
        further = self._drawing.further + own.epochs * (self.config.weights != "fixed")
        drawn = asked + rows * own.tokens + further * read
        return Work(
            0, made_tokens=round(steps * own.epochs * read), drawn_tokens=round(steps * drawn)
        )

    def part(self, client: Client, steps: int, trains: tuple[str, ...] = ("*",)) -> list[Phase]:
        """Return instruction tuning in the first rounds, then alignment."""
        config = self.config
        if client.round <= config.tuning_rounds:
            return super().part(client, steps, trains)
        reference = self._reference(client)
        weight = self.weight(client)
        own = constants(weight, self.told(client), reference or {})
        if config.algorithm == "dpo":
            pairs = with_preferences(client.data, self._preferences(client, reference))
            phase = Phase(pairs, self._objective(), steps, trains, constants=own)
            return [self.held(client, phase)]
        rows = config.answers.prompts * config.answers.samples
        phase = Phase(
            client.data.first,
            self._objective(),
            config.answers.epochs,
            trains,
            constants=own,
            batch_size=rows,
            goes_on=True,
            maker=self._drawing,
        )
        return [self.held(client, phase)] * steps

    def held(self, client: Client, phase: Phase) -> Phase:
        """Return a phase with the pull; where that counts in the reward, with its anchors only."""
        held = super().held(client, phase)
        if self.config.distance == "reward" and phase.maker is not None:
            return replace(held, objective=phase.objective)
        return held

    def upload(self, client: Client, grant: Grant) -> Payload | None:
        """Return what is shared; the means of what its answers earned are noted."""
        for name in client.made[0] if client.made else ():
            client.notes[name] = float(np.mean([notes[name] for notes in client.made]))
        return super().upload(client, grant)

    def weight(self, client: Client) -> float:
        """Return the weight of helpful answers that a client trains for."""
        chosen = self.config.trains_for
        return float(self.preferences[client.index] if chosen == "own" else chosen)

    @property
    def personalised(self) -> Sequence[str]:
        """Patterns of tensors that learn for the client's own weights where these are split."""
        return self.private

    def judge(
        self, state: State, learner: Learner, adapter: Adapter, test: Examples
    ) -> dict[str, float]:
        """Return helpful, safe, kl and distinct_2 of answers; of pairs, the share won.

        A pair is won where the chosen answer gained more over the pretrained model.
        """
        found = {}
        if self._examination is not None:
            told = state.get("judges", {})
            found = self._examination(learner.model, adapter, test.first, told)
        if test.sequences == 2:
            found["pairs_won"] = preferred(learner.model, test, adapter, None)
        return found

    def judged_by(self, client: int, judged: Mapping[str, float]) -> dict[str, float]:
        """Add the reward by the client's own preference."""
        if "helpful" not in judged:
            return dict(judged)
        a = float(self.preferences[client])
        reward = a * judged["helpful"] + (1.0 - a) * judged["safe"]
        return {"reward": reward, **judged, "preference": a}

    def facts(self, state: State, test: Examples) -> dict[str, Any]:
        """Return preferences, and the front of the built-in objectives over the test prompts."""
        found: dict[str, Any] = {"preferences": self.preferences.tolist()}
        if "judges" in state:
            found["judges"] = state["accuracy"]
            sent = Dense(state["judges"], self.config.value_type)
            found["judges_bits"] = 8 * len(encode(sent))
        if isinstance(self._rewards, TopicRewards) and self._examination is not None:
            tokenizer = self.setup.server.model.backbone.tokenizer
            asked = self._examination.asked(test.first)
            mix = [about(t) for t in tokenizer.batch_decode(asked, skip_special_tokens=True)]
            found["front"] = self._rewards.task.front(mix).points.tolist()
        return found

    def _check_room(self, lengths: np.ndarray) -> None:
        """Raise UserError if the longest prompt leaves no room for an answer."""
        config = self.config
        if config.rewards is None:
            return
        longest = int(lengths.max())
        asked = {"answers": config.answers.tokens, "examined": config.examined.tokens}
        which = max(asked, key=lambda key: asked[key])
        room = self.setup.server.model.backbone.longest
        if longest + asked[which] > room:
            raise UserError(
                f"method.{which}.tokens: a prompt of {longest} tokens and an answer of "
                f"{asked[which]} need more than the model's {room} positions; shorten answers, or "
                "cut prompts by model.max_tokens."
            )

    def _judge(self) -> Rewards | None:
        """Return what judges answers; raise UserError for prompts whose answers it cannot judge."""
        chosen = self.config.rewards
        if chosen is None:
            return None
        if isinstance(chosen, LearnedRewardsConfig):
            learned_rewards.check(chosen, self.setup.server.model.backbone, self.setup.seed)
            return LearnedRewards()
        tokenizer = self.setup.server.model.backbone.tokenizer
        asked = prompts_of(self.setup.texts.first)
        for text in tokenizer.batch_decode(asked, skip_special_tokens=True):
            about(text)
        return TopicRewards(OBJECTIVES[chosen])

    def _credit(self) -> Credit:
        config = self.config
        if config.algorithm == "ppo":
            return Critic(config.kl, lam=config.gae)
        return Mixture(config.scale) if config.weights == "fixed" else Apart(config.scale)

    def _objective(self) -> Objective:
        config = self.config
        weighing = TwoLosses(
            config.weights,
            config.kappa,
            equal_length=config.equal_length,
            private=tuple(self.personalised),
            common=config.common_weight,
        )
        if config.algorithm == "dpo":
            return PairwisePreference(weighing, config.dpo_beta)
        kl = 0.0 if config.algorithm == "ppo" else config.kl
        temperature = config.answers.temperature
        if config.weights == "fixed":
            return Policy(config.clip, kl, temperature, config.entropy)
        return TwoRewards(weighing, config.clip, kl, temperature, config.entropy)

    def _preferences(self, client: Client, reference: Adapter | None) -> Mapping[str, Tensor]:
        """Return what DPO asks of the client's pairs, which never changes: it is found once."""
        if "preferences" not in client.state:
            data, told, rewards = client.data, self.told(client), self._rewards
            found = preferences(client.learner.model, data, reference, rewards, told)
            client.state["preferences"] = found
            looked = 1 + (rewards is not None and rewards.reads)
            client.predicted_tokens += looked * int(data.corpus.lengths[data.rows].sum())
        kept: Mapping[str, Tensor] = client.state["preferences"]
        return kept

    def _reference(self, client: Client) -> Adapter | None:
        """Return the client's model at the end of instruction tuning; None for the pretrained."""
        if self.config.tuning_rounds == 0:
            return None
        if "reference" not in client.state:
            client.state["reference"] = dict(client.adapter)
        reference: Adapter = client.state["reference"]
        return reference


def _stop(learner: Learner) -> tuple[int, ...]:
    """Return the tokens that end an answer: the end's, and that of another text's beginning."""
    tokenizer = learner.model.backbone.tokenizer
    both = {tokenizer.eos_token_id, tokenizer.bos_token_id} - {None}
    return tuple(sorted(map(int, both)))
