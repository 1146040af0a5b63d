"""The base of the configuration nodes, on a node of its own."""

import pickle
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

import pytest
from omegaconf import OmegaConf
from pydantic import Field, ValidationError, field_validator, model_validator

from codedance_verl.config.node import Allowed, KeyFault, Node, SettingsError, allowed


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Inner(Node):
    share: float = Field(0.5, ge=0, le=1)
    """Share of it."""


class Square(Node):
    kind: Literal["square"] = "square"
    side: float = Field(1.0, ge=0)


class Circle(Node):
    kind: Literal["circle"] = "circle"
    radius: float = Field(1.0, ge=0)


class Example(Node):
    KEY: ClassVar[str] = "environment"

    count: int = Field(3, ge=1, le=100)
    """Number of things."""

    limit: float | None = Field(None, ge=0.01, le=1_000_000)
    on: bool = True
    name: str = "a"
    colour: Colour = Colour.RED
    texts: tuple[str, ...] = ()
    colours: tuple[Colour, ...] = ()
    urls: Annotated[tuple[str, ...], Allowed("a list of URLs")] = ()
    inner: Inner = Inner()
    sources: dict[str, Inner] = Field(default_factory=dict)
    shape: Annotated[Square | Circle, Field(discriminator="kind")] = Square()

    @field_validator("name")
    @classmethod
    def _no_blank(cls, value: str) -> str:
        if " " in value:
            raise ValueError("must have no blank")
        return value

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.limit is not None and self.limit < self.count:
            raise KeyFault("limit", self.limit, f"must be at least environment.count ({self.count})")
        return self


def lines(values: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Example.from_mapping(values)
    assert [fault.line for fault in caught.value.faults] == str(caught.value).splitlines()
    assert all(fault.line.startswith(fault.key) for fault in caught.value.faults)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"count": 0}, "environment.count=0: must be a whole number from 1 to 100"),
        ({"count": True}, "environment.count=True: must be a whole number from 1 to 100"),
        ({"count": 2.0}, "environment.count=2.0: must be a whole number from 1 to 100"),
        ({"count": None}, "environment.count=None: must be a whole number from 1 to 100"),
        ({"limit": "x"}, "environment.limit=x: must be a number from 0.01 to 1e+06, or null"),
        ({"limit": float("nan")}, "environment.limit=nan: must be a number from 0.01 to 1e+06, or null"),
        ({"limit": 2}, "environment.limit=2.0: must be at least environment.count (3)"),
        ({"on": "yes"}, "environment.on=yes: must be true or false"),
        ({"name": 3}, "environment.name=3: must be a text"),
        ({"name": "a b"}, "environment.name=a b: must have no blank"),
        ({"colour": "green"}, "environment.colour=green: must be one of red, blue"),
        ({"texts": "abc"}, "environment.texts=abc: must be a list of texts, such as [a, b] or []"),
        ({"texts": ["a", 1]}, "environment.texts=['a', 1]: must be a list of texts, such as [a, b] or []"),
        ({"colours": ["red", "green"]}, "environment.colours=green: must be a list of one of red, blue"),
        ({"urls": "abc"}, "environment.urls=abc: must be a list of URLs"),
        ({"inner": 1}, "environment.inner=1: must be a mapping; known are share"),
        ({"inner": {"share": 2}}, "environment.inner.share=2: must be a number from 0 to 1"),
        ({"inner": {"shar": 2}}, "environment.inner.shar: unknown key; known are share"),
        ({"sources": {"a": {"share": 2}}}, "environment.sources.a.share=2: must be a number from 0 to 1"),
        ({"sources": {"a": 2}}, "environment.sources.a=2: must be a mapping; known are share"),
        ({"shape": {"kind": "circle", "radius": -1}}, "environment.shape.radius=-1: must be a number of at least 0"),
        ({"shape": {"kind": "circle", "side": 1}}, "environment.shape.side: unknown key; known are kind, radius"),
        ({"answer_tokens": 3}, "environment.answer_tokens: is now environment.min_answer_tokens"),
        (3, "environment=3: must be a mapping; its keys are set one by one, as environment.KEY=VALUE"),
    ],
)
def test_a_fault_is_one_line_that_says_what_is_allowed(values: Any, line: str) -> None:
    assert lines(values) == [line]


def test_all_faults_are_found_at_once() -> None:
    values = {"count": 0, "on": 1, "inner": {"share": 2}, "nonsense": 1}
    assert [line.split("=")[0].split(":")[0] for line in lines(OmegaConf.create(values))] == [
        "environment.count",
        "environment.on",
        "environment.inner.share",
        "environment.nonsense",
    ]


def test_values_of_a_configuration_become_those_of_the_fields() -> None:
    config = OmegaConf.create(
        {"count": 5, "limit": 7, "colour": "blue", "texts": ["a"], "shape": {"kind": "circle"}, "name": "${count}s"}
    )
    node = Example.from_mapping(config)
    assert (node.count, node.limit, node.colour, node.texts) == (5, 7.0, Colour.BLUE, ("a",))
    assert node.shape == Circle() and node.name == "5s"
    assert Example.from_mapping(node.model_dump(mode="json")) == node == pickle.loads(pickle.dumps(node))


def test_a_node_is_frozen_and_its_copies_are_checked() -> None:
    node = Example()
    with pytest.raises(ValidationError):
        node.count = 4  # type: ignore[misc]
    assert node.replace(count=4).count == 4
    with pytest.raises(SettingsError, match=r"^environment\.count=0: must be"):
        node.replace(count=0)


def test_an_error_survives_pickling() -> None:
    with pytest.raises(SettingsError) as caught:
        Example.from_mapping({"count": 0})
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) and again.faults == caught.value.faults


def test_a_field_has_its_description_and_range() -> None:
    field = Example.model_fields["count"]
    assert field.description == "Number of things." and allowed(field) == "a whole number from 1 to 100"
