"""Outputs of agent loops on their way into verl's queue: as an agent loop returns them, then with scores and images.

Images of a group are prepared once each, packed as bytes, off the event loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from pydantic import Field
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput

from codedance_verl.grading.judge.stats import JudgeStats
from codedance_verl.reward.encoding import Cut, encode_rewards, trained_mask
from codedance_verl.rollout.telemetry import reward_extra_info
from codedance_verl.types import IMAGE_PLACEHOLDER, Grade, RewardTerms, Trajectory
from codedance_verl.verl_compat.pixel_bytes import PatchLayout, joined, pack, without_pixels

RESIZED_IMAGES = "resized_images"
"""Field of a record that holds the `SharedImages` of its group."""

KEPT = "kept_rollout"
"""Field of a record that holds the `Kept` of a branch."""

Prepare = Callable[[Image.Image], dict[str, Any]]
"""Preparation of one image: its model inputs, as the processor makes them."""


class RolloutOutput(AgentLoopOutput):  # type: ignore[misc]  # verl ships no types
    """Output of the agent loop, in which the worker sets its record, the token rewards and the images' model inputs."""

    token_rewards: Any = None
    """Float32 tensor [response_length], see `codedance_verl.reward.encoding`."""

    image_inputs: Any = Field(None, exclude=True)
    """Model inputs of the images, see `GroupImages`; None: not made yet."""

    record: dict[str, Any] = Field(default_factory=dict, exclude=True)
    """Fields of its record, with verl's `uid` and `session_id`; set where a finished rollout waits for its group."""

    rollout: Any = Field(None, exclude=True)
    """Finished `environment.loop.Rollout`, of which branches keep a part."""

    replay_differs: bool = Field(False, exclude=True)
    """True for a rollout in the place of a branch whose cells came to another result when they were run again."""

    @property
    def trajectory(self) -> Trajectory:
        """Typed record of the rollout."""
        return self.extra_fields["trajectory"]  # type: ignore[no-any-return]

    def as_dict(self) -> dict[str, Any]:
        fields: dict[str, Any] = super().as_dict()
        # verl would put the whole score on the last token: the token rewards take the place of that
        fields["rm_scores"] = fields.pop("token_rewards")
        return fields


def scored_output(
    output: RolloutOutput,
    grade: Grade,
    terms: RewardTerms,
    outcome: float,
    judged: JudgeStats,
    grade_s: float,
    cut: Cut | None = None,
) -> RolloutOutput:
    """Returns the output as verl queues it: token rewards in, typed records out, which are no tensors and stay here.

    Args:
        output: of the agent loop.
        grade: of the rollout.
        terms: reward of the rollout, as its token rewards are to have it.
        outcome, judged, grade_s: see `GroupScores`.
        cut: what is left untrained of a branch or a source.
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
            "response_mask": trained_mask(output.response_mask, spans, terms, cut),
            "metrics": output.metrics.model_copy(update={"compute_score": grade_s}),
            "reward_score": terms.score,
            "token_rewards": torch.as_tensor(encode_rewards(spans, terms, length, cut), dtype=torch.float32),
            "extra_fields": {
                "reward_extra_info": reported,
                "min_global_steps": extra["min_global_steps"],
                "max_global_steps": extra["max_global_steps"],
            },
        }
    )
    return copied


class GroupImages:
    """Model inputs of the rollouts of one prompt; an image that several of them hold, the question's, is prepared once.

    `images`: those of each rollout, in order. An image is the same by identity: rollouts share their resized images.
    """

    def __init__(self, images: Sequence[Sequence[Image.Image]], prepare: Prepare, layout: PatchLayout | None) -> None:
        self._prepare, self._layout = prepare, layout
        self._holders = Counter(id(image) for held in images for image in held)
        self._shared: dict[tuple[int, bool], dict[str, Any]] = {}

    async def inputs(self, images: Sequence[Image.Image], pixels: bool = True) -> dict[str, Any] | None:
        """Returns the inputs of one rollout, made in a thread; without pixels where nothing is trained on it."""
        return await asyncio.to_thread(self.made, images, pixels)

    def made(self, images: Sequence[Image.Image], pixels: bool = True) -> dict[str, Any] | None:
        """Returns the inputs of one rollout; None without an image: verl makes the inputs of text alone."""
        if not images:
            return None
        return joined([self._of(image, pixels) for image in images])

    def _of(self, image: Image.Image, pixels: bool) -> dict[str, Any]:
        if (known := self._shared.get((id(image), pixels))) is not None:
            return known
        prepared = self._prepare(image)
        made = pack(prepared, self._layout) if pixels else without_pixels(prepared)
        if self._holders[id(image)] > 1:  # an image of one rollout alone is let go with it
            self._shared[id(image), pixels] = made
        return made


def images_of(output: Any) -> list[Image.Image]:
    """Returns the images of an `AgentLoopOutput`, in order."""
    found: list[Image.Image] = (output.multi_modal_data or {}).get("images") or []
    return found


def without_images(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a record, every image in its messages replaced by a placeholder.

    Else each of the n rollouts of a prompt would carry them all through the queue, where no one reads them.
    """
    found = {name: value for name, value in fields.items() if name not in (RESIZED_IMAGES, KEPT)}
    for name in ("prompt", "raw_prompt"):
        if name in fields:
            found[name] = [{**message, "content": _text_of(message["content"])} for message in fields[name]]
    return found


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(IMAGE_PLACEHOLDER if part["type"] == "image" else part["text"] for part in content)
