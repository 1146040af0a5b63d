"""Checks by verl's own dataclasses, made of the configuration as a run makes them: their errors, before it starts.

verl makes them with Hydra's `instantiate`, in processes of Ray, minutes into a run. Nothing checks the types of their
fields there: a value of another type is used until something breaks. It is refused here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import types
import typing
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.errors import HydraException
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from codedance_verl.preflight.capabilities import Change, changes, composed_values, shown, value_shown
from codedance_verl.preflight.layout import SEPARATE, needs_critic, needs_reference
from codedance_verl.preflight.report import Report, at
from codedance_verl.preflight.settings import ACTOR, ROLLOUT

_REFERENCE = "actor_rollout_ref.ref"
_RENAMED = {
    "log_prob_micro_batch_size": "ppo_micro_batch_size",
    "log_prob_micro_batch_size_per_gpu": "ppo_micro_batch_size_per_gpu",
    "log_prob_use_dynamic_bsz": "use_dynamic_bsz",
    "log_prob_max_token_len_per_gpu": "ppo_max_token_len_per_gpu",
}
"""Keys of the reference that verl's `ActorRolloutRefWorker.init_model` moves before it makes its dataclass."""


def check_fields(config: DictConfig, report: Report) -> None:
    """Checks that every changed value has a field, and its type.

    Where no dataclass of verl's reads the value, it must be of the kind of the one that it replaces.
    """
    for change in changes(config):
        if report.has_error(change.key):
            continue
        owner, field = _owner(config, change.key)
        if owner is None:
            for line in _kind_faults(config, change):
                report.add_error(line)
        elif field is not None:
            for line in _field_faults(config, change, owner, field):
                report.add_error(line)


def check_dataclasses(config: DictConfig, report: Report) -> None:
    """Makes the dataclasses that a run makes, but for the model, whose files are checked by themselves."""
    changed = changes(config)
    for node in _made(config):
        if report.has_error_below(node):
            continue
        try:
            _make(config, node)
        except InterpolationResolutionError as error:  # of a node elsewhere, which may have an error
            if not report.findings:
                report.add_error(_refusal(config, node, error, [change.key for change in changed]))
        except Exception as error:  # whatever a dataclass of verl's raises
            report.add_error(_refusal(config, node, error, [change.key for change in changed]))


def check_sft_nodes(config: DictConfig, report: Report) -> None:
    """Checks the nodes that verl's SFT trainer makes dataclasses of (`SFTTrainer._build_config`)."""
    for node in _OF_SFT:
        values = at(config, node)
        if not isinstance(values, DictConfig):
            report.add_error(
                f"{node}={value_shown(values)}: is a node of keys; set them one by one, as {node}.KEY=VALUE"
            )
            continue
        owner = get_class(str(values["_target_"]))
        follows = {
            "_target_",
            *(["path"] if node == "model" else []),  # `find_model` reports more about it
            *(["load_contents"] if values.get("load_contents") == values.get("save_contents") else []),
        }
        for name in (str(name) for name in values if name not in follows):
            change = Change(f"{node}.{name}", _resolved(config, f"{node}.{name}"), added=True)
            if not report.has_error(change.key):
                for line in _field_faults(config, change, owner, name):
                    report.add_error(line)
        if node != "model" and not report.has_error_below(node):  # the model's files are checked by themselves
            try:
                _make(config, node)
            except Exception as error:  # whatever a dataclass of verl's raises
                report.add_error(_refusal(config, node, error, []))


_OF_SFT = ("model", "engine", "optim", "checkpoint", "profiler")


def _made(config: DictConfig) -> Iterator[str]:
    """Yields the nodes that a run makes dataclasses of."""
    yield ROLLOUT
    yield f"{ROLLOUT}.checkpoint_engine"
    yield ACTOR
    if needs_reference(config):
        yield _REFERENCE
    if needs_critic(config):
        yield from ("critic.optim", "critic.fsdp", "critic.checkpoint", "critic.profiler")
    if at(config, "trainer.v1.trainer_mode") == SEPARATE:
        yield "trainer.v1.separate_async.hybrid_rollout"


def _make(config: DictConfig, node: str) -> None:
    from verl.utils.config import omega_conf_to_dataclass

    values = OmegaConf.select(config, node)
    if node == _REFERENCE:
        values = _as_worker_makes_it(values, at(config, f"{ACTOR}.ppo_mini_batch_size"))
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        omega_conf_to_dataclass(values)


def _as_worker_makes_it(values: DictConfig, mini_batch: object) -> DictConfig:
    resolved: Any = OmegaConf.to_container(values, resolve=True)
    for old, new in _RENAMED.items():
        resolved[new] = resolved.pop(old, None)
    made = OmegaConf.create({**resolved, "ppo_mini_batch_size": mini_batch})
    assert isinstance(made, DictConfig)
    return made


def _refusal(config: DictConfig, node: str, error: Exception, changed: Sequence[str]) -> str:
    """Returns the line of an exception of verl's, led by the changed key that it is about."""
    # Hydra wraps what a dataclass raises
    cause = error.__cause__ if isinstance(error, HydraException) and error.__cause__ else error
    text = " ".join(str(cause).split()).split(" full_key:")[0] or type(cause).__name__
    below = [key for key in changed if key.startswith(f"{node}.")]
    # verl names a field without its node: the one changed key of that name, or the only change, is meant
    named = [key for key in below if key.rpartition(".")[2] in text] or (below if len(below) == 1 else [])
    key = named[0] if named else node
    subject = f"{key}={value_shown(at(config, key))}" if named else key
    return f"{subject}: verl refuses it: {text}"


def _owner(config: DictConfig, key: str) -> tuple[type[Any] | None, str | None]:
    """Returns the dataclass that reads a key, and its field; None for a key below a field that takes any mapping."""
    names = key.split(".")
    for length in range(len(names) - 1, 0, -1):  # the innermost node with a `_target_`
        target = at(config, ".".join([*names[:length], "_target_"]))
        if isinstance(target, str):
            return _below(get_class(target), names[length:])
    return None, None


def _below(owner: type[Any], names: list[str]) -> tuple[type[Any], str | None]:
    """Returns the dataclass of the last name, through fields that are dataclasses themselves."""
    if len(names) == 1:
        return owner, names[0]
    hint = typing.get_type_hints(owner).get(names[0])
    for item in (hint, *typing.get_args(hint)):  # also the dataclass in `X | None`
        if isinstance(item, type) and dataclasses.is_dataclass(item):
            return _below(item, names[1:])
    return owner, None if names[0] in typing.get_type_hints(owner) else names[0]


def _field_faults(config: DictConfig, change: Change, owner: type[Any], name: str) -> Iterator[str]:
    fields = [item.name for item in dataclasses.fields(owner)]
    if name not in fields:
        if change.added:
            near = difflib.get_close_matches(name, fields, n=3)
            cure = f"did you mean {' or '.join(near)}?" if near else "`--cfg job` prints every key there is"
            yield f"{shown(change)}: unknown key: verl's {owner.__name__} has none of this name; {cure}"
        else:
            yield from _kind_faults(config, change)
        return
    wanted, value = typing.get_type_hints(owner)[name], _resolved(config, change.key)
    if not _fits(value, wanted) and not _fits_before(change, value):
        yield f"{shown(change)}: must be {_named(wanted)}"


def _kind_faults(config: DictConfig, change: Change) -> Iterator[str]:
    """Faults of a value that no dataclass describes: it must be of the kind of the one it replaces."""
    before, value = _before(change.key), _resolved(config, change.key)
    if change.added or before is None or value is None or (isinstance(before, str) and "${" in before):
        return
    if isinstance(before, bool):
        right, wanted = isinstance(value, bool), "true or false"
    elif isinstance(before, int | float):
        right, wanted = _is_number(value), "a number"
    elif isinstance(before, Mapping):
        right, wanted = isinstance(value, Mapping), "a mapping"
    else:
        return
    if not right:
        yield f"{change.key}={value_shown(value)}: must be {wanted}"


def _fits_before(change: Change, value: object) -> bool:
    """Returns True where verl's own value has this type too, whatever its field declares."""
    before = _before(change.key)
    return before is not None and type(before) is type(value)


def _before(key: str) -> Any:
    values: Any = composed_values()
    for name in key.split("."):
        if not isinstance(values, Mapping):
            return None
        values = values.get(name)
    return values


def _resolved(config: DictConfig, key: str) -> Any:
    try:
        value = OmegaConf.select(config, key)
    except OmegaConfBaseException:
        return None
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _fits(value: object, wanted: Any) -> bool:
    """Returns True where a value of the configuration has the type of a field."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, item) for item in arguments)
    if wanted is bool:  # before the numbers, as a bool is an int to Python
        return isinstance(value, bool)
    if wanted in (int, float):
        # 2.0 passes for an int, as it is equal to one
        return _is_number(value) and (wanted is float or float(value) == int(value))  # type: ignore[arg-type,call-overload]
    if wanted is str:
        return isinstance(value, str)
    if wanted is type(None):
        return value is None
    if (origin or wanted) in (list, tuple):
        return isinstance(value, list) and (not arguments or all(_fits(item, arguments[0]) for item in value))
    if origin is typing.Literal:
        return value in arguments
    if origin is dict or wanted is dict or dataclasses.is_dataclass(wanted):
        return isinstance(value, Mapping)
    return True


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _named(wanted: Any) -> str:
    """Returns the type of a field in words."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_named(item) for item in arguments)
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, arguments))}"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "null"}
    if (origin or wanted) in (list, tuple):
        return f"a list, each {_named(arguments[0])}" if arguments else "a list"
    return names.get(wanted, "a mapping")
