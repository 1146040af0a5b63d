"""Checks of the services of a run: the container engine with its image, and the judge."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from codedance_verl.errors import UserError
from codedance_verl.grading import GradingConfig
from codedance_verl.grading.custom import CustomGraders
from codedance_verl.preflight.files import OpenRecord
from codedance_verl.preflight.report import AlreadyReported, Report, at, joins_cluster

if TYPE_CHECKING:
    from docker import DockerClient


def check_judge(config: DictConfig, report: Report, open_records: Sequence[OpenRecord]) -> None:
    """Checks that a judge answers, and reports those that do not; without a judge, that no record needs one."""
    with report.collecting():
        try:
            grading = GradingConfig.from_mapping(config.grading)
        except UserError:
            raise AlreadyReported("grading") from None
        if grading.judge.endpoints:
            _probe(grading, report)
        elif grading.open_answers == "judge":
            report.add_row("judge", "endpoints", "none")
            _no_open_records(open_records, grading.custom, report)
        else:
            report.add_row("judge", "endpoints", "none is asked (grading.open_answers=text)")


def check_engine(config: DictConfig, report: Report) -> None:
    """Checks with `sandbox.backend=docker` that an engine answers (a run may start one) and has the image."""
    from codedance_verl.sandbox.docker.engine import connect, ensure_engine

    backend = at(config, "sandbox.backend")
    if backend == "process":
        report.add_row("sandbox", "backend", "process: no security boundary")
    # with `auto` a run finds out when it starts the pool, and falls back to processes
    if backend not in ("docker", "auto") or (backend == "auto" and not report.dry):
        return
    if joins_cluster(config):
        report.add_row("sandbox", "engine", "the cluster's nodes are asked when their interpreters start")
        return
    with report.collecting():
        client = connect()
        if client is None and (backend == "auto" or (report.dry and _run_may_start_one())):
            report.add_row("sandbox", "engine", "none answers; a run starts one if it may")
            return
        try:
            client = client or ensure_engine(may_start=not report.dry)
        except UserError as error:
            raise UserError(f"sandbox.backend={backend}: {error}") from error
        try:
            _check_image(config, report, client)
        finally:
            client.close()


def _check_image(config: DictConfig, report: Report, client: DockerClient) -> None:
    from codedance_verl.sandbox.docker.image import require_image

    info = client.info()
    report.add_row("sandbox", "engine", f"{info.get('ServerVersion', '?')} at {client.api.base_url}")
    wanted, installed = str(at(config, "sandbox.runtime") or ""), sorted(info.get("Runtimes") or {})
    if wanted and wanted not in installed:
        report.add_error(f"sandbox.runtime={wanted}: the engine has no such runtime; it has {', '.join(installed)}")
    try:
        report.add_row("sandbox", "image", require_image(client, str(config.sandbox.image)))
    except UserError as error:
        raise UserError(f"sandbox.image={config.sandbox.image}: {error}") from error


def _run_may_start_one() -> bool:
    return os.geteuid() == 0 and not os.environ.get("DOCKER_HOST")


def _probe(grading: GradingConfig, report: Report) -> None:
    from codedance_verl.grading.judge.probe import unreachable

    # one of several may be down: the others take its requests
    silent, asked = unreachable(grading.judge), len(grading.judge.endpoints)
    for line in silent:
        print(f"judge: {line}", flush=True)
    report.add_row("judge", "endpoints", f"{asked - len(silent)} of {asked} answer")
    if len(silent) == asked:
        report.add_error(f"grading.judge.endpoints: none answers; {silent[0]}")


def _no_open_records(records: Sequence[OpenRecord], graders: CustomGraders, report: Report) -> None:
    """Checks that no record needs a judge but those that a grader of the user's own grades."""
    for record in records:
        if graders.path_for(record.style, record.data_source) is None:
            report.add_error(
                f"grading.judge.endpoints=[]: data.{record.key}: {record.path} row {record.row}: its answer needs a "
                "judge (reward_model.style) and there is none; name one, or set grading.open_answers=text"
            )
            return
