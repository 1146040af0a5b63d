"""Check of the sandbox's sizes against the largest images of the data; sizes that are null are computed from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import psutil
from omegaconf import DictConfig

from codedance_verl.errors import UserError
from codedance_verl.preflight.report import AlreadyReported, Report, joins_cluster
from codedance_verl.sandbox.config import MIB, SandboxConfig
from codedance_verl.sandbox.docker.sizing import (
    ImageLoad,
    most_sessions,
    most_sessions_sized,
    needed,
    needed_by_session,
    predicted,
    sized,
)
from codedance_verl.sandbox.host_share import actors_on, containers_on

SIZED = ("memory_mb", "scratch_mb", "session_file_mb")
"""Keys of `sandbox` that may be null."""


def check_images(config: DictConfig, report: Report, load: ImageLoad | None) -> None:
    """Compares given sizes with the images of the data, and puts numbers where there is null.

    Every session of a container is taken to hold the question with the largest images. `load` is None where no data
    could be read: null stays, and the sandbox assumes images of a megapixel.
    """
    with report.collecting():
        given = _sandbox(config)
        if load is None:
            return
        width, height = load.largest
        report.add_row("sandbox", "largest image", f"{width} x {height}; row {load.row} has the most pixels")
        for line in _faults(given, load):
            report.add_error(line)
        # sizes have upper bounds themselves, and so have the sessions that computed sizes can hold
        fits, sessions = most_sessions_sized(given, load), given.sessions_per_container
        if fits < sessions:
            report.add_error(
                f"sandbox.sessions_per_container={sessions}: must be at most {fits} with images as large as those of "
                f"row {load.row}, as a container that holds more is larger than sandbox.memory_mb or scratch_mb may be"
            )
            return
        _fill_sizes(config, given, load)
        if given.backend != "process":
            _report_sizes(config, report, given, load)


def _sandbox(config: DictConfig) -> SandboxConfig:
    try:
        return SandboxConfig.from_mapping(config.sandbox)
    except UserError:
        raise AlreadyReported("sandbox") from None


def _faults(given: SandboxConfig, load: ImageLoad) -> Iterator[str]:
    """Yields a line for each size that is too small for the images; null never is."""
    yield from _session_faults(given, load)
    least, sessions = needed(given, load), given.sessions_per_container
    width, height = load.largest
    what = f"images as large as those of row {load.row}, the largest of them {width} x {height}"
    for name, number in asdict(least).items():
        value = getattr(given, name)
        # the process backend has no containers: of these limits only that of a file applies to it
        if value is None or value >= number or (given.backend == "process" and name != "session_file_mb"):
            continue
        if name == "session_file_mb":
            yield f"sandbox.{name}={value}: must be at least {number}, the largest image as a PNG file, or null"
            continue
        fewer = most_sessions(given, load)
        cure = f", or lower sandbox.sessions_per_container to {fewer}" if fewer else ""
        yield f"sandbox.{name}={value}: must be at least {number} for {sessions} sessions with {what}, or null{cure}"


def _session_faults(given: SandboxConfig, load: ImageLoad) -> Iterator[str]:
    least, (width, height) = needed_by_session(load), load.largest
    if given.session_memory_mb < least:
        yield (
            f"sandbox.session_memory_mb={given.session_memory_mb}: must be at least {least}, what it takes to decode "
            f"the images of a question as large as row {load.row}, the largest of them {width} x {height}"
        )


def _fill_sizes(config: DictConfig, given: SandboxConfig, load: ImageLoad) -> None:
    """Writes the sizes into the configuration: every process of a run reads these, whatever data it has at hand."""
    filled = sized(given, load)
    for name in SIZED:
        config.sandbox[name] = getattr(filled, name)


def _report_sizes(config: DictConfig, report: Report, given: SandboxConfig, load: ImageLoad) -> None:
    room, sessions = predicted(given, load), given.sessions_per_container
    memory_mb, scratch_mb = config.sandbox.memory_mb, config.sandbox.scratch_mb
    report.add_row(
        "sandbox",
        "a container",
        f"{memory_mb:,} MiB at most, {scratch_mb:,} of them files; {sessions} sessions with images as large use "
        f"{room.memory_mb:,} and {room.scratch_mb:,}",
    )
    # nodes of a cluster may have more actors than this machine would, each with a container at least
    containers = containers_on(given, actors_on(given))
    # limits, not use: a machine may have less as long as sessions do not fill their containers
    total_mb = containers * memory_mb
    line = f"{containers} containers, up to {total_mb:,} MiB"
    if not joins_cluster(config):
        machine_mb = psutil.virtual_memory().total // MIB
        line += f" of the {machine_mb:,} MiB of this machine"
        if total_mb > machine_mb:
            line += (
                ": processes are killed where all is used; lower sandbox.sessions_per_container or sandbox.containers"
            )
    report.add_row("sandbox", "a node", line)
