"""One rank of verl's real engines on gloo: `python -m tests.integration.engine_rank MODEL OUT`, as torchrun starts it.

Trains actor, critic and a LoRA actor on a fixed batch of rollouts with pictures, and writes to the folder OUT what came
of it. verl's own `TrainingWorker`, as its Ray workers hold it, with our configuration and our engines.
"""

from __future__ import annotations

import json
import random
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from omegaconf import DictConfig
from PIL import Image
from verl.trainer.ppo.v1 import agent_loop_tq
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.tensordict_utils import assign_non_tensor, list_of_dict_to_tensordict
from verl.workers.config import HFModelConfig, TrainingWorkerConfig
from verl.workers.engine_workers import TrainingWorker
from verl.workers.utils.losses import ppo_loss, value_loss

from codedance_verl.config.compose import compose_config
from codedance_verl.rollout.worker import CodeDanceAgentLoopWorker

ROLLOUTS, UPDATES = 8, 3
FILLED = [f"data.{kind}_files=none" for kind in ("train", "val")]
TRAINING = [
    "hardware=cpu",
    "recipe=cpu_demo",
    "run_dir=none",
    "environment.save_trajectories=false",
    *FILLED,
    f"actor_rollout_ref.actor.ppo_mini_batch_size={ROLLOUTS}",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2",
    "actor_rollout_ref.actor.optim.total_training_steps=10",
    "critic.optim.total_training_steps=10",
    "critic.optim.lr=1e-3",
]


def composed(model: Path, *overrides: str) -> DictConfig:
    return compose_config("train", [*TRAINING, f"actor_rollout_ref.model.path={model}", *overrides])


def rollout(worker: Any, index: int, chance: random.Random) -> dict[str, Any]:
    """A rollout of two turns on one picture, as verl's worker would queue it; its tokens are drawn at random."""
    picture = Image.new("RGB", (56, 56), tuple(chance.randrange(256) for _ in range(3)))
    text = "<|vision_start|><|image_pad|><|vision_end|>" + " how many?" * (
        1 + index % 4
    )  # of one length they would not be nested
    given = worker.processor(text=[text], images=[picture], return_tensors="pt")["input_ids"][0]
    lengths = [chance.randint(3, 12), chance.randint(2, 6), chance.randint(3, 12)]
    letters = worker.tokenizer.encode("abcdefghijklmnopqrstuvwxyz0123456789", add_special_tokens=False)
    answered = torch.tensor(chance.choices(letters, k=sum(lengths)))
    ids = torch.cat([given, answered])
    output = SimpleNamespace(multi_modal_data={"images": [picture]}, mm_processor_kwargs=None)
    inputs = worker._compute_multi_modal_inputs(output, ids)
    mask = torch.tensor([1] * lengths[0] + [0] * lengths[1] + [1] * lengths[2])
    normal = [torch.tensor([chance.gauss(0, 1) for _ in answered]) for _ in range(4)]
    return {
        "prompts": given,
        "responses": answered,
        "response_mask": mask,
        "loss_mask": mask,
        "input_ids": ids,
        "position_ids": worker._compute_position_ids(ids[None], torch.ones_like(ids)[None], inputs).squeeze(0),
        "multi_modal_inputs": inputs,
        "old_log_probs": -6.9 + 0.1 * normal[0],
        "advantages": normal[1],
        "returns": normal[2],
        "values": 0.1 * normal[3],
    }


def share_of(rank: int, world: int, config: DictConfig) -> Any:
    """This rank's part of the batch, which is the same however many ranks there are."""
    with mock.patch.object(agent_loop_tq.tq, "init"):  # nothing is queued
        worker: Any = CodeDanceAgentLoopWorker(config, None)
    chance = random.Random(0)
    rollouts = [rollout(worker, index, chance) for index in range(ROLLOUTS)]
    size = ROLLOUTS // world
    batch = list_of_dict_to_tensordict(rollouts[rank * size : (rank + 1) * size])
    whole = {"mini_batch_size": ROLLOUTS, "global_batch_size": ROLLOUTS}
    assign_non_tensor(batch, temperature=1.0, dataloader_kwargs={"shuffle": False}, **whole)
    return batch


def make(role: DictConfig, model: HFModelConfig, kind: str, loss: Any) -> TrainingWorker:
    """The worker that verl's `ActorRolloutRefWorker.init_model` and `PPOTrainer._setup` would make."""
    config = omega_conf_to_dataclass(role)
    config.engine.use_dynamic_bsz = False
    config.engine.micro_batch_size_per_gpu = role.ppo_micro_batch_size_per_gpu
    config.engine.infer_micro_batch_size_per_gpu = role.ppo_micro_batch_size_per_gpu
    worker = TrainingWorker(
        TrainingWorkerConfig(
            model_type=kind,
            model_config=model,
            engine_config=config.engine,
            optimizer_config=config.optim,
            checkpoint_config=config.checkpoint,
        )
    )
    worker.reset()
    worker.set_loss_fn(partial(loss, config=config))
    return worker


def trained(worker: TrainingWorker, batch: Any) -> list[dict[str, float]]:
    """Loss and gradient of each of a few updates on the batch."""
    seen = []
    for _ in range(UPDATES):
        metrics = worker.train_mini_batch(batch.clone())["metrics"]
        seen.append({name: float(metrics[name][0]) for name in ("loss", "grad_norm")})
    return seen


def actor_of(config: DictConfig) -> TrainingWorker:
    nodes = config.actor_rollout_ref
    return make(nodes.actor, omega_conf_to_dataclass(nodes.model), "language_model", ppo_loss)


def main(model: Path, out: Path) -> None:
    plain = composed(model)
    actor = actor_of(plain)
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    batch = share_of(rank, world, plain)
    found: dict[str, Any] = {"actor": trained(actor, batch)}
    ppo = composed(model, "algorithm=ppo").critic
    critic = make(ppo, omega_conf_to_dataclass(ppo.model), "value_model", value_loss)
    found["critic"] = trained(critic, batch)

    lora = actor_of(composed(model, "adapter=lora"))
    before = dict(lora.engine.get_per_tensor_param()[0])
    found["lora"] = trained(lora, batch)
    after = dict(lora.engine.get_per_tensor_param()[0])
    found["moved"] = [name for name in before if not torch.equal(before[name], after[name])]
    lora.save_checkpoint(str(out / "lora"))
    if rank == 0:
        torch.save(after, out / "merged.pt")
        (out / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
