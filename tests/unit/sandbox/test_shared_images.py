"""Images that sessions share: whole and unchangeable for each, held by the host for as long as it should."""

from __future__ import annotations

import io
import mmap
import os
from collections.abc import Iterator
from typing import Any

import numpy
import pytest
from PIL import Image

from codedance_verl.sandbox.shared_images import HeldImage, SharedImages
from sandbox_image.codedance_interpreter import shared_images
from sandbox_image.codedance_interpreter.image_store import ImageStore
from sandbox_image.codedance_interpreter.shared_images import Unusable

NOISE = numpy.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=numpy.uint8)


def encoded(form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, form, **options)
    return buffer.getvalue()


class Store:
    """A store whose images are decoded by this process."""

    def __init__(self) -> None:
        self.store = ImageStore()
        self.news: Any = None

    def decode(self, data: bytes, status: int = 0) -> None:
        file, unchecked = self.store.add("key")
        self.store.decoder_started(1, "key")
        shared_images.write(os.dup(file), unchecked, data)
        self.news = self.store.decoder_ended(1, status)

    def take(self) -> Any:
        """Takes the image as a session does, with descriptors of its own."""
        (image,) = self.store.images(["key"])
        own = shared_images.SharedImage(*map(os.dup, image.descriptors))
        shared_images.await_check(own)
        return shared_images.take(own)


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    yield made
    made.store.forget("key")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_pixels_and_file_are_those_that_came(store: Store, form: str) -> None:
    data = encoded(form, **({"lossless": True} if form == "WEBP" else {"dpi": (30, 30)}))
    store.decode(data)
    image = store.take()
    expected = Image.open(io.BytesIO(data)).convert("RGB")
    assert image.rgb.mode == "RGB" and image.rgb.size == (70, 90) and image.rgb.tobytes() == expected.tobytes()
    assert bytes(image.data) == data and image.form == form
    assert {key: image.rgb.info.get(key) for key in ("dpi", "jfif")} == {
        key: expected.info.get(key) for key in ("dpi", "jfif")
    }


def test_a_file_that_shows_other_pixels_is_of_no_form(store: Store) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    store.decode(encoded("JPEG", exif=turned))
    assert (store.take().form, store.take().rgb.size) == ("", (90, 70))


def test_what_one_session_draws_no_other_sees(store: Store) -> None:
    store.decode(encoded())
    mine, theirs = store.take().rgb, store.take().rgb
    mine.load()[0, 0] = (1, 2, 3)
    mine.paste((0, 0, 0), (5, 5, 20, 20))
    assert mine.getpixel((0, 0)) == (1, 2, 3) and theirs.tobytes() == NOISE.tobytes()
    assert store.take().rgb.tobytes() == NOISE.tobytes()


def test_nobody_can_change_a_finished_image(store: Store) -> None:
    store.decode(encoded())
    (image,) = store.store.images(["key"])
    again = os.open(f"/proc/self/fd/{image.file}", os.O_RDWR)
    with pytest.raises(PermissionError):
        os.pwrite(again, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(again, 0)
    with pytest.raises(PermissionError):
        mmap.mmap(again, 4096, mmap.MAP_SHARED, mmap.PROT_WRITE)
    os.close(again)


def test_an_image_that_is_not_sealed_is_not_used(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_images, "seal", lambda _: None)
    store.decode(encoded())
    with pytest.raises(Unusable, match="can still be changed"):
        store.take()


@pytest.mark.parametrize("header", [{"size": (70, 91)}, {"size": (0, 90)}, {"data": 5}, {"info": -1}])
def test_sizes_that_do_not_agree_are_not_used(store: Store, header: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    really = shared_images._set_header
    monkeypatch.setattr(
        shared_images, "_set_header", lambda file, state, fields: really(file, state, fields | header if fields else {})
    )
    store.decode(encoded())
    with pytest.raises(Unusable, match="another size"):
        store.take()


@pytest.mark.parametrize(("data", "reason"), [(b"nothing", "no image"), (encoded()[:-600], "Truncated")])
def test_the_reason_of_a_broken_image_is_kept(store: Store, data: bytes, reason: str) -> None:
    store.decode(data)
    with pytest.raises(Unusable, match=reason) as raised:
        store.take()
    assert raised.value.lacks == "" and store.news["bytes"] == 0


def test_a_file_that_breaks_off_is_known_to_be_an_image(store: Store) -> None:
    store.decode(encoded("JPEG")[:-600])
    (image,) = store.store.images(["key"])
    shared_images.await_check(image)
    with pytest.raises(Unusable, match="truncated"):
        store.take()


@pytest.mark.parametrize(("status", "lacks"), [(9, "memory"), (11, ""), (0, "")])
def test_a_decoder_that_dies_is_no_fault_of_the_image_where_memory_ran_out(
    store: Store, status: int, lacks: str
) -> None:
    _, unchecked = store.store.add("key")
    os.close(unchecked)
    store.store.decoder_started(1, "key")
    store.news = store.store.decoder_ended(1, status)
    with pytest.raises(Unusable, match="has died") as raised:
        store.take()
    assert raised.value.lacks == lacks and store.news == {"op": "image", "image": "key", "bytes": 0}


def test_a_forgotten_image_leaves_no_descriptor(store: Store) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for data in (encoded(), b"nothing"):
        file, unchecked = store.store.add("other")
        store.store.decoder_started(2, "other")
        shared_images.write(file, unchecked, data)
        assert store.store.decoder_ended(2, 0) is not None
        store.store.forget("other")
    store.store.add("undecoded")
    store.store.forget("undecoded")
    assert len(os.listdir("/proc/self/fd")) == before + 1  # noqa: PTH208  what the decoder was to close
    assert store.store.memory_bytes == 0


class Host:
    """The host's list, with what it sends and ends."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.ended: list[HeldImage] = []
        self.images = SharedImages(self.sent.append, iter(range(1000, 2000)).__next__, self.ended.append)

    def take(self, *names: str) -> list[HeldImage]:
        return self.images.take([b"image"] * len(names), [name.encode() for name in names], {})

    def ops(self) -> list[str]:
        return [f"{message['op']} {message['image']}" for message in self.sent]


def test_sessions_of_one_question_share_and_others_do_not() -> None:
    host = Host()
    one, two, other = host.take("a"), host.take("a"), host.take("b", "a")
    assert one[0] is two[0] is other[1] and other[0] is not one[0]
    assert host.ops() == ["image 0", "image 1"] and one[0].uid != other[0].uid


def test_unused_images_are_kept_up_to_the_bound_the_last_used_longest() -> None:
    host = Host()
    a, b = host.take("a"), host.take("b")
    for held in (*a, *b):
        host.images.note({"image": held.key, "bytes": 100}, 150)
    assert host.images.decoded_bytes == 200
    host.images.give_back(b, 150)
    host.images.give_back(a, 150)
    assert host.ops()[2:] == ["forget 0"] and host.ended == a, "a was taken first"
    assert host.take("b") == b and host.images.decoded_bytes == 100


def test_with_nothing_kept_an_image_ends_with_its_last_session() -> None:
    host = Host()
    one, two = host.take("a"), host.take("a")
    host.images.give_back(one, 0)
    assert host.ops() == ["image 0"]
    host.images.give_back(two, 0)
    assert host.ops() == ["image 0", "forget 0"]


def test_an_image_that_failed_is_tried_again_and_held_until_its_sessions_have_gone() -> None:
    host = Host()
    failed = host.take("a")
    host.images.note({"image": failed[0].key, "bytes": 0}, 1000)
    again = host.take("a")
    assert again[0] is not failed[0] and host.ops() == ["image 0", "image 1"]
    host.images.give_back(failed, 1000)
    assert host.ops()[2:] == ["forget 0"]
    host.images.give_back(again, 1000)
    assert host.take("a") == again


@pytest.mark.parametrize("message", [{}, {"image": "7"}, {"image": ["0"], "bytes": 5}, {"image": "0", "bytes": "many"}])
def test_nonsense_about_an_image_harms_nothing(message: Any) -> None:
    host = Host()
    held = host.take("a")
    host.images.note(message, 1000)
    host.images.give_back(held, 1000)
    assert host.images.decoded_bytes == 0
