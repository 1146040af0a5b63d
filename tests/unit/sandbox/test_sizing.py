"""Memory and file space of a container follow the number of its sessions and the size of the images."""

from __future__ import annotations

import pytest

from codedance_verl.errors import UserError
from codedance_verl.sandbox.config import SandboxConfig
from codedance_verl.sandbox.docker import sizing
from codedance_verl.sandbox.docker.sizing import (
    ASSUMED,
    ImageLoad,
    cells_at_once,
    most_sessions,
    needed,
    predicted,
    sized,
)
from sandbox_image.codedance_interpreter import room

MIB = 1 << 20
PHOTO = ImageLoad(2250 * 1500, 2250 * 1500, 900_000, (2250, 1500), row=7)
LARGE = ImageLoad(7680 * 4320, 7680 * 4320, 9_000_000, (7680, 4320))
SMALL = ImageLoad(300 * 200, 300 * 200, 40_000, (300, 200))
ONE = SandboxConfig(containers=1, concurrent_cells=8)


def test_what_is_computed_holds_the_files_and_images_of_all_sessions() -> None:
    for load, sessions in ((PHOTO, 128), (LARGE, 6), (ASSUMED, 128)):
        config = sized(ONE.replace(sessions_per_container=sessions), load)
        raw = 3 * load.pixels
        assert config.scratch_mb is not None and config.memory_mb is not None and config.session_file_mb is not None
        assert config.scratch_mb * MIB > sessions * 2 * raw, "two PNG files that do not shrink"
        assert (config.memory_mb - config.scratch_mb) * MIB > sessions * 2 * raw + min(sessions, 8) * 8 * raw
        assert config.session_file_mb * MIB > raw * 1.001
        least = needed(config, load)
        assert least.memory_mb < config.memory_mb and least.scratch_mb < config.scratch_mb


def test_the_sessions_that_were_refused_for_want_of_file_space_have_room() -> None:
    """128 sessions with photographs of 2250 x 1500: in 512 MiB no more than 71 fitted."""
    assert (sized(ONE, PHOTO).scratch_mb or 0) > 128 * (10.1 + 0.9) * 1e6 / MIB


def test_a_container_may_lack_what_the_image_has_words_for() -> None:
    assert {room.FILES, room.MEMORY, room.SESSION_MEMORY, room.PROCESSES} == sizing.LACKS
    assert "sandbox.scratch_mb=48: raise it" in str(sizing.full("c1", room.FILES, ONE.replace(scratch_mb=48)))


def test_a_session_holds_its_images_and_a_second_copy_of_the_one_it_decodes() -> None:
    assert sizing.needed_by_session(ImageLoad(MIB, MIB, MIB, (1024, 1024))) == 4 + 4 + 1
    assert sizing.needed_by_session(ImageLoad(8 * MIB, MIB, 0, (1024, 1024))) == 32 + 4


@pytest.mark.parametrize("load", [LARGE, PHOTO])
def test_the_sessions_whose_sizes_may_be_set_are_the_most_that_may(load: ImageLoad) -> None:
    most = ONE.replace(sessions_per_container=4096)
    fits = sizing.most_sessions_sized(most, load)
    sized(most.replace(sessions_per_container=fits), load)
    if fits < 4096:
        with pytest.raises(UserError):
            sized(most.replace(sessions_per_container=fits + 1), load)
    assert (fits < 4096) == (load is LARGE)


def test_small_images_leave_the_sizes_that_code_can_work_with() -> None:
    config = sized(ONE.replace(sessions_per_container=8), SMALL)
    assert (config.memory_mb, config.scratch_mb, config.session_file_mb) == (4096, 512, 64)


def test_sizes_that_are_given_stay_and_count() -> None:
    given = ONE.replace(memory_mb=1024, scratch_mb=48, session_file_mb=2)
    assert sized(given, PHOTO) == given
    much = sized(ONE.replace(scratch_mb=20_000), PHOTO)
    assert much.scratch_mb == 20_000 and (much.memory_mb or 0) > 20_000, "files lie in the memory"


def test_sizing_twice_changes_nothing() -> None:
    assert sized(sized(ONE, PHOTO), SMALL) == sized(ONE, PHOTO)


def test_more_sessions_and_more_images_take_more() -> None:
    both = ImageLoad(2 * PHOTO.pixels, PHOTO.pixels, 2 * PHOTO.encoded_bytes, PHOTO.largest)
    for more in (predicted(ONE, both), predicted(ONE.replace(sessions_per_container=129), PHOTO)):
        assert more.memory_mb > predicted(ONE, PHOTO).memory_mb and more.scratch_mb > predicted(ONE, PHOTO).scratch_mb


def test_cells_at_once_are_spread_over_the_containers() -> None:
    assert cells_at_once(ONE.replace(containers=8, concurrent_cells=100)) == 13
    assert cells_at_once(ONE.replace(sessions_per_container=4)) == 4


def test_the_sessions_that_fit_are_the_most_that_fit() -> None:
    given = ONE.replace(scratch_mb=512, memory_mb=4096)
    fits = most_sessions(given, PHOTO)
    for sessions, holds in ((fits, True), (fits + 1, False)):
        least = needed(given.replace(sessions_per_container=sessions), PHOTO)
        assert (least.scratch_mb <= 512 and least.memory_mb <= 4096) == holds
    assert most_sessions(given.replace(scratch_mb=16), LARGE) == 0


@pytest.mark.parametrize("turned", [False, True])
def test_the_larger_of_each_number_holds_for_both_rows(turned: bool) -> None:
    wide = ImageLoad(10_000, 10_000, 50, (1000, 10), row=1)
    several = ImageLoad(12_000, 4_000, 90, (80, 50), row=2)
    joined = several.joined(wide) if turned else wide.joined(several)
    assert joined == ImageLoad(12_000, 10_000, 90, (1000, 10), row=2)
