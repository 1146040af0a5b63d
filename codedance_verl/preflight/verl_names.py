"""Checks of names that verl resolves late, an hour into a run maybe: losses, KL estimators, optimizers, trackers.

They are compared with verl's own registries and functions, so that messages list the names of the installed verl.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig, ListConfig

from codedance_verl.config.node import one_of
from codedance_verl.preflight.layout import needs_critic
from codedance_verl.preflight.report import Report, Rule, apply_rules, at
from codedance_verl.preflight.settings import ACTOR, MODEL, ROLLOUT

KL_ESTIMATORS = ("kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3")
"""Names of `verl.trainer.ppo.core_algos.kl_penalty`; with a + behind, the gradient is that of k2."""

CHECKPOINT_PARTS = ("model", "optimizer", "extra", "hf_model")

PACKAGES = {
    "wandb": ("wandb", "wandb"),
    "mlflow": ("mlflow", "mlflow"),
    "swanlab": ("swanlab", "swanlab"),
    "trackio": ("trackio", "trackio"),
    "clearml": ("clearml", "clearml"),
    "tensorboard": ("tensorboard", "tensorboard"),
    "vemlp_wandb": ("volcengine_ml_platform", "volcengine-ml-platform"),
    "rl_insight": ("rl_insight", "rl-insight"),
}
"""Trackers of verl that need a package: its module, and its name on PyPI."""


MANAGER = "codedance_verl.rollout.worker.CodeDanceAgentLoopManager"
"""Manager that starts our rollout workers."""


def check_names(config: DictConfig, report: Report) -> None:
    """Finds every name that verl does not have."""
    apply_rules(_RULES, config, report)
    check_trackers(config, report)


def check_trackers(config: DictConfig, report: Report) -> None:
    """Checks that every name in `trainer.logger` is a tracker of verl's whose package is installed."""
    from verl.utils.tracking import Tracking

    given = at(config, "trainer.logger")
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list | ListConfig):
        report.add_error(
            f"trainer.logger={given}: must be a list of {', '.join(Tracking.supported_backend)}; [] for none"
        )
        return
    for name in names:  # verl imports the package of a tracker when training starts
        if name not in Tracking.supported_backend:
            report.add_error(f"trainer.logger={name}: must be one of {', '.join(Tracking.supported_backend)}")
        elif name in PACKAGES and importlib.util.find_spec(PACKAGES[name][0]) is None:
            cure = f"`pip install {PACKAGES[name][1]}`, or leave it out"
            report.add_error(f"trainer.logger={name}: its package is not installed; {cure}")


def check_optimizer(config: DictConfig, node: str) -> Iterator[str]:
    """Checks that the schedule is one of verl's, and that the class of the optimizer can be imported."""
    key = f"{node}.lr_scheduler_type"
    yield from _choice(config, key, ("constant", "cosine"))
    if at(config, f"{node}.warmup_style") is not None:
        yield from _choice(config, f"{node}.warmup_style", ("constant", "cosine"))
    module, name = at(config, f"{node}.optimizer_impl"), at(config, f"{node}.optimizer")
    try:
        found = importlib.import_module(str(module))
    except ImportError as error:
        yield f"{node}.optimizer_impl={module}: cannot be imported ({error}); torch.optim has AdamW and others"
        return
    if not isinstance(getattr(found, str(name), None), type):
        yield f"{node}.optimizer={name}: {module} has no such optimizer; AdamW is the default"


def _choice(config: DictConfig, key: str, allowed: Sequence[str]) -> Iterator[str]:
    if fault := one_of(allowed).fault(at(config, key), key):
        yield fault.line


def _policy_loss(config: DictConfig) -> Iterator[str]:
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY

    key = f"{ACTOR}.policy_loss.loss_mode"
    if at(config, key) == "bypass_mode":
        yield f"{key}=bypass_mode: verl's V0 trainer alone uses it; algorithm.rollout_correction.bypass_mode=true does"
        return
    yield from _choice(config, key, sorted(set(POLICY_LOSS_REGISTRY) - {"bypass_mode"}))
    if at(config, key) == "dro" and at(config, f"{ACTOR}.policy_loss.dro_beta") is None:
        yield f"{ACTOR}.policy_loss.dro_beta=null: must be a number with {key}=dro"


def _kl(config: DictConfig) -> Iterator[str]:
    names = [*KL_ESTIMATORS, *(f"{name}+" for name in KL_ESTIMATORS)]
    yield from _choice(config, f"{ACTOR}.kl_loss_type", names)
    yield from _choice(config, "algorithm.kl_penalty", names)
    yield from _choice(config, "algorithm.kl_ctrl.type", ("fixed", "adaptive"))


def _correction(config: DictConfig) -> Iterator[str]:
    from verl.trainer.ppo import rollout_corr_helper

    node = "algorithm.rollout_correction"
    level, options, bounds = (
        at(config, f"{node}.{name}") for name in ("rollout_is", "rollout_rs", "rollout_rs_threshold")
    )
    if level is not None:
        yield from _choice(config, f"{node}.rollout_is", ("token", "sequence"))
    if at(config, f"{node}.bypass_mode") and (level or options):
        name, value = ("rollout_is", level) if level else ("rollout_rs", options)
        yield (
            f"{node}.{name}={value}: has no effect with {node}.bypass_mode=true, where no log-probs are recomputed; "
            "set it to null"
        )
    if options is None:
        return
    allowed = sorted(rollout_corr_helper.SUPPORTED_ROLLOUT_RS_OPTIONS)
    given = [option.strip() for option in str(options).split(",") if option.strip()]
    if not given or not set(given) <= set(allowed):
        yield f"{node}.rollout_rs={options}: must be one or several of {', '.join(allowed)}"
    elif bounds is None:
        yield f"{node}.rollout_rs_threshold=null: must be given with rollout_rs={options}, such as 0.5_2.0 or 2.0"
    else:
        # verl parses the bounds when the first batch comes; its own parser says what is wrong with them
        yield from _refused(
            lambda: rollout_corr_helper._parse_rollout_rs_thresholds(list(dict.fromkeys(given)), bounds),
            f"{node}.rollout_rs_threshold={bounds}",
        )


def _refused(parse: Callable[[], object], shown: str) -> Iterator[str]:
    try:
        parse()
    except (ValueError, TypeError) as error:
        yield f"{shown}: {' '.join(str(error).split())}"


def _optimizers(config: DictConfig) -> Iterator[str]:
    yield from check_optimizer(config, f"{ACTOR}.optim")
    if needs_critic(config):
        yield from check_optimizer(config, "critic.optim")


def _precision(config: DictConfig) -> Iterator[str]:
    from verl.utils.torch_dtypes import PrecisionType

    for node in (f"{ACTOR}.fsdp_config", "actor_rollout_ref.ref.fsdp_config", "critic.fsdp"):
        mixed: Any = at(config, f"{node}.mixed_precision")
        keys = [f"{node}.dtype", f"{node}.model_dtype"]
        keys += [f"{node}.mixed_precision.{name}" for name in map(str, mixed)] if isinstance(mixed, DictConfig) else []
        for key in keys:
            try:
                PrecisionType.to_dtype(at(config, key))
            except (RuntimeError, ValueError, AttributeError, TypeError):
                yield f"{key}={at(config, key)}: must be one of bf16, fp16, fp32 (bfloat16, float16, float32)"


def _checkpoints(config: DictConfig) -> Iterator[str]:
    """Checks what is saved: without a part no checkpoint is resumed, without `hf_model` no model is published."""
    # a critic is never published, so it needs no hf_model
    for node, needed in ((ACTOR, CHECKPOINT_PARTS), ("critic", CHECKPOINT_PARTS[:3])):
        for name in ("save_contents", "load_contents"):
            key = f"{node}.checkpoint.{name}"
            given = at(config, key)
            parts = list(given) if isinstance(given, list | ListConfig) else [given]
            if not set(map(str, parts)) <= set(CHECKPOINT_PARTS):
                yield f"{key}={given}: must be a list of {', '.join(CHECKPOINT_PARTS)}"
            elif name == "save_contents" and not set(needed) <= set(parts):
                yield f"{key}={given}: must hold {', '.join(needed)}, or no run resumes from it"


def _buffer(config: DictConfig) -> Iterator[str]:
    node = "trainer.v1.sampler"
    most = at(config, f"{node}.max_off_policy_threshold")
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        yield f"{node}.max_off_policy_threshold={most}: must be a whole number of at least 1, or null for any"
    yield from _choice(config, f"{node}.max_off_policy_strategy", ("drop", "wait"))


def _profiler(config: DictConfig) -> Iterator[str]:
    nodes = (ACTOR, "actor_rollout_ref.ref", ROLLOUT, "critic")
    general = at(config, "global_profiler.tool")
    for key in ("global_profiler.tool", *(f"{node}.profiler.tool" for node in nodes)):
        # nodes take the general tool by interpolation: one error for all of them
        repeated = key != "global_profiler.tool" and at(config, key) == general
        if at(config, key) is not None and not repeated:
            yield from _choice(config, key, ("nsys", "npu", "torch", "torch_memory", "precision_debugger"))


def _attention(config: DictConfig) -> Iterator[str]:
    key = f"{MODEL}.override_config.attn_implementation"
    value = at(config, key)
    if isinstance(value, str) and "/" in value:  # a kernel of the hub
        return
    if value is not None:
        allowed = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention")
        yield from _choice(config, key, allowed)


def _dynamic(config: DictConfig) -> Iterator[str]:
    """Checks that the two keys agree: verl's workers end where they differ."""
    key = f"{ROLLOUT}.log_prob_use_dynamic_bsz"
    if bool(at(config, key)) != bool(at(config, f"{ACTOR}.use_dynamic_bsz")):
        yield f"{key}={at(config, key)}: must be that of {ACTOR}.use_dynamic_bsz"


def _manager(config: DictConfig) -> Iterator[str]:
    """Checks that the manager of rollouts starts our workers, which score groups."""
    key = f"{ROLLOUT}.agent.agent_loop_manager_class"
    given = at(config, key)
    if given == MANAGER:
        return
    try:
        found = get_class(str(given))
    except Exception as error:  # whatever the import of a module raises
        yield f"{key}={given}: cannot be imported ({str(error).splitlines()[0]}); it is {MANAGER} or derived from it"
        return
    from codedance_verl.rollout.worker import CodeDanceAgentLoopManager

    if not issubclass(found, CodeDanceAgentLoopManager):
        yield f"{key}={given}: must be {MANAGER} or derived from it, or groups are not scored"


_RULES: tuple[Rule, ...] = (
    _manager,
    _policy_loss,
    _kl,
    _correction,
    _optimizers,
    _precision,
    _checkpoints,
    _buffer,
    _profiler,
    _attention,
    _dynamic,
)
