from __future__ import annotations

import pytest
from PIL import Image

from codedance_verl.environment.resized_images import SharedImages
from codedance_verl.rollout.fault_count import FaultCount, TooManyFaults
from codedance_verl.rollout.output import RESIZED_IMAGES, without_images
from codedance_verl.types import FinishReason


def test_faults_with_something_good_in_between_never_end_a_run() -> None:
    faults = FaultCount(most=4)
    for _ in range(10):
        faults.add([*[FinishReason.INFRASTRUCTURE] * 3, FinishReason.LENGTH])
    assert faults.in_a_row == 0


def test_too_many_faults_in_a_row_are_an_error() -> None:
    faults = FaultCount(most=4)
    faults.add([FinishReason.INFRASTRUCTURE] * 3)
    with pytest.raises(TooManyFaults, match=r"5 rollouts in a row .*environment\.max_faults_in_a_row=4"):
        faults.add([FinishReason.INFRASTRUCTURE] * 2)


def test_a_queued_record_keeps_its_text_and_the_places_of_its_pictures() -> None:
    picture = {"type": "image", "image": Image.new("RGB", (9, 9)), "bytes": b"..."}
    told = {"role": "system", "content": "Answer."}
    asked = {"role": "user", "content": [picture, {"type": "text", "text": "How many?"}, picture]}
    record = {"raw_prompt": [told, asked], "index": 7, RESIZED_IMAGES: SharedImages()}
    text = {"role": "user", "content": "<image>How many?<image>"}
    assert without_images(record) == {"raw_prompt": [told, text], "index": 7}
    assert asked["content"][0] is picture
