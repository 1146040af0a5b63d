"""Endpoint of an evaluation: a running `codedance serve`, or any chat endpoint with the loop on this side or none."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

from omegaconf import OmegaConf

from codedance_verl.environment.config import EnvironmentConfig
from codedance_verl.errors import UserError
from codedance_verl.harness.chat_answerer import ChatAnswerer, ChatSettings
from codedance_verl.harness.http import Endpoint
from codedance_verl.harness.reply import Answerer
from codedance_verl.harness.sampling import Sampling
from codedance_verl.harness.served_answerer import NotServed, ServedAnswerer, ServedSettings
from codedance_verl.harness.settings import EvalSettings
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.serving.config import ServingConfig
from codedance_verl.serving.settings import take_settings

AT_ONCE = 16
"""Questions at once, where `eval.concurrency` does not say."""


@contextlib.asynccontextmanager
async def connected(settings: EvalSettings, tell: Callable[[str], None]) -> AsyncIterator[Answerer]:
    """Connects to the endpoint of the settings; with `eval.loop=auto` it is asked what it is.

    `tell` gets a line that names the loop. Raises UserError: nothing answers there, or it cannot do what is asked.
    """
    async with contextlib.AsyncExitStack() as resources:
        yield await _opened(settings, resources, tell)


async def _opened(
    settings: EvalSettings, resources: contextlib.AsyncExitStack, tell: Callable[[str], None]
) -> Answerer:
    asked = settings.evaluation
    endpoint = Endpoint(str(asked.endpoint), asked.api_key_env, asked.concurrency or AT_ONCE)
    if asked.loop == "auto":
        switches = ServedSettings(_sampling(settings), asked.service_control, asked.max_turns)
        try:
            served = await resources.enter_async_context(ServedAnswerer.opened(endpoint, switches, os.environ))
        except NotServed:
            pass  # it answers, and is another server: the loop runs here
        else:
            _check_served(settings, served)
            tell(f"{endpoint.url}: `codedance serve` with {served.model}, whose loop it is")
            return served
    take_settings(settings.tree, settings.overrides)
    loop = "the plain question is asked once" if asked.loop == "plain" else "the loop runs here"
    tell(f"{endpoint.url}: a chat endpoint; {loop} (eval.loop={asked.loop})")
    chat = ChatAnswerer.opened(endpoint, chat_settings(settings), _sandbox(settings), os.environ)
    return await resources.enter_async_context(chat)


def _check_served(settings: EvalSettings, served: ServedAnswerer) -> None:
    """Raises UserError: another model is served than is asked for, or what the service itself decides was given."""
    asked = settings.evaluation
    if served.model != asked.model:
        raise UserError(
            f"eval.model={asked.model}: {asked.endpoint} serves {served.model}; give this name, or the address of "
            f"{asked.model}"
        )
    if asked.model_revision:
        raise UserError(
            f"eval.model_revision={asked.model_revision}: {asked.endpoint} states its weights itself; leave it out"
        )
    if settings.tree.serving.settings_of is not None:
        raise UserError(f"serving.settings_of: {asked.endpoint} has settings of its own; start it with this key")


def _sampling(settings: EvalSettings) -> Sampling:
    asked = settings.evaluation
    return Sampling(asked.temperature, asked.top_p, asked.seed)


def chat_settings(settings: EvalSettings) -> ChatSettings:
    """Settings of the loop on this side. Raises UserError: a control that no chat endpoint offers."""
    asked = settings.evaluation
    environment = EnvironmentConfig.from_mapping(_plain(settings, "environment"))
    if asked.max_turns is not None:
        environment = environment.replace(max_turns=asked.max_turns)
    # the budget of a trajectory, as `codedance serve` has it
    tokens = ServingConfig.from_mapping(_plain(settings, "serving")).response_tokens
    return ChatSettings(
        model=asked.model,
        sampling=replace(_sampling(settings), max_tokens=tokens),
        environment=environment,
        tools=asked.loop != "plain",
        control=asked.service_control,
        revision=asked.model_revision,
    )


def _sandbox(settings: EvalSettings) -> SandboxConfig:
    return SandboxConfig.from_mapping(_plain(settings, "sandbox"))


def _plain(settings: EvalSettings, node: str) -> dict[str, Any]:
    values: Any = OmegaConf.to_container(OmegaConf.select(settings.tree, node), resolve=True)
    return dict(values)
