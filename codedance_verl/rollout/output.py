"""Outputs of agent loops on their way into verl's queue: as an agent loop returns them, then with their scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput

from codedance_verl.grading.judge.stats import JudgeStats
from codedance_verl.reward.encoding import encode_rewards
from codedance_verl.rollout.telemetry import reward_extra_info
from codedance_verl.types import Grade, RewardTerms, Trajectory


class RolloutOutput(AgentLoopOutput):  # type: ignore[misc]  # verl ships no types
    """Output of the agent loop, in which the scorer sets one reward per response token and the images' model inputs."""

    token_rewards: Any = None
    """Float32 tensor [response_length], see `codedance_verl.reward.encoding`."""

    image_inputs: Any = None
    """Model inputs of the images, see `codedance_verl.rollout.packing`; None: not made yet."""

    @property
    def trajectory(self) -> Trajectory:
        """Typed record of the rollout."""
        return self.extra_fields["trajectory"]  # type: ignore[no-any-return]

    def as_dict(self) -> dict[str, Any]:
        fields: dict[str, Any] = super().as_dict()
        fields.pop("image_inputs", None)
        # verl would put the whole score on the last token: the token rewards take the place of that
        fields["rm_scores"] = fields.pop("token_rewards")
        return fields


@dataclass(frozen=True)
class GroupRollout:
    """Finished rollout of a group, waiting for the others: its output, and the fields of its record."""

    output: RolloutOutput
    fields: dict[str, Any]

    @property
    def trajectory(self) -> Trajectory:
        return self.output.trajectory


def scored_output(
    output: RolloutOutput, grade: Grade, terms: RewardTerms, outcome: float, judged: JudgeStats, grade_s: float
) -> RolloutOutput:
    """Returns the output as verl queues it: token rewards in, typed records out, which are no tensors and stay here.

    Args:
        output: of the agent loop.
        grade: of the rollout.
        terms: reward of the rollout, as its token rewards are to have it.
        outcome, judged, grade_s: see `GroupScores`.
    """
    spans = [(turn.token_start, turn.token_end) for turn in output.trajectory.turns]
    length = len(output.response_ids)
    extra = output.extra_fields
    reported = reward_extra_info(
        output.trajectory, grade, terms, extra["timing"], extra["sandbox_retries"], outcome, judged
    )
    copied: RolloutOutput = output.model_copy(
        update={
            # without a 1 in its mask a rollout is in no loss, and no turn of it is found by `decode_rewards`
            "response_mask": [0] * length if terms.masked else output.response_mask,
            "metrics": output.metrics.model_copy(update={"compute_score": grade_s}),
            "reward_score": terms.score,
            "token_rewards": torch.as_tensor(encode_rewards(spans, terms, length), dtype=torch.float32),
            "extra_fields": {
                "reward_extra_info": reported,
                "min_global_steps": extra["min_global_steps"],
                "max_global_steps": extra["max_global_steps"],
            },
        }
    )
    return copied
