from __future__ import annotations

import pytest

from codedance_verl.config import compose_config
from codedance_verl.train import _settle_validation

ARGUMENTS = ["recipe=cpu_demo", "run_dir=/nonexistent", "data.train_files=a", "data.val_files=b"]


@pytest.mark.parametrize(
    ("step", "overrides", "validates_first"),
    [
        (0, ["trainer.val_before_train=true"], True),
        (0, ["trainer.test_freq=4"], False),
        (2, ["trainer.val_before_train=true", "trainer.test_freq=4"], False),
        (4, ["trainer.test_freq=4"], True),
        (4, ["trainer.test_freq=-1"], False),
        (4, ["trainer.test_freq=4", "trainer.resume_mode=disable"], False),
    ],
    ids=["new, asked to", "new", "was done before", "interrupted in its last one", "has none", "starts over"],
)
def test_a_run_that_resumes_validates_what_it_owes(step: int, overrides: list[str], validates_first: bool) -> None:
    config = compose_config("train", [*ARGUMENTS, "trainer.total_training_steps=4", *overrides])
    _settle_validation(config, step)
    assert config.trainer.val_before_train is validates_first
