"""verl's task runner with fault-tolerant trainers in every mode."""

from __future__ import annotations

from typing import Any

import ray
from omegaconf import DictConfig
from verl.trainer.main_ppo import TaskRunnerV1
from verl.trainer.ppo.v1 import get_trainer_cls
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

from codedance_verl.trainer.fault_tolerance import fault_tolerant
from codedance_verl.verl_compat import light_actors, repairs

_VerlRunner: Any = TaskRunnerV1.__ray_metadata__.modified_class  # the class under verl's @ray.remote


class TaskRunner(_VerlRunner):  # type: ignore[misc]
    """Ray task that runs the training; `verl.trainer.main_ppo.run_ppo` takes it as `task_runner_class`."""

    def run(self, config: DictConfig) -> None:
        """Trains to the end.

        Raises:
            Stopped: a stop was asked for; what was trained until then is saved.
        """
        light_actors.start_light()
        repairs.wait_for_devices()
        # verl's registry is how it finds a trainer by its mode: ours, a subclass, takes the place of its own
        mode = config.trainer.v1.trainer_mode
        TRAINER_REGISTRY[mode] = fault_tolerant(get_trainer_cls(mode))
        super().run(config)


RemoteRunner = ray.remote(TaskRunner)
