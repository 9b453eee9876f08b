"""The people of a record with the keyed digests of their photos, held as the text that the record's file has of them.

There may be a hundred thousand photos. Whoever writes, compares or checks records of them needs that text and its
digests, and hardly ever a Python object for each.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Annotated, Any, Self, overload

from pydantic import ConfigDict, Field, GetCoreSchemaHandler
from pydantic.dataclasses import dataclass
from pydantic_core import CoreSchema, core_schema

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_FIRST = '\n    {\n      "number": '
_MIDDLE, _BETWEEN, _AFTER = ',\n      "photos": [\n        "', '",\n        "', '"\n      ]\n    }'
_EMPTY = ',\n      "photos": []\n    }'
# Nothing is given back, so that matching takes no memory. A number of 12 digits is within its bounds.
_PERSON = (
    rb'\n    \{\n      "number": [1-9][0-9]{0,11}+,\n      "photos": \[\n        "[0-9a-f]{64}+"'
    rb'(?>,\n        "[0-9a-f]{64}+")*+\n      \]\n    \}'
)
_FIELD = b'\n  "retain": ['
_END = b"\n  ]"
_PEOPLE = re.compile(rb"(?>" + _PERSON + rb")(?>," + _PERSON + rb")*+")
_PHOTO = re.compile(r'"([0-9a-f]{64})"')
_NUMBER = b'\n      "number": '


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class PersonRecord:
    """One person, as a number and the keyed digests of the photos, without anything that leads to a name or a face.

    There may be very many, and a pydantic model takes five times the memory.
    """

    number: int = Field(ge=1, lt=2**40)
    photos: tuple[Hash, ...]

    def plain(self) -> dict[str, Any]:
        """The person as in JSON."""
        return {"number": self.number, "photos": list(self.photos)}


class Roster(Sequence[PersonRecord]):
    """People in their order. Two are equal if they have the same people with the same photos in the same order."""

    def __init__(self, text: bytes = b"") -> None:
        """Take the text of people, as a record's file has it inside the brackets of a list; `of` makes it."""
        self._text = text

    @classmethod
    def of(cls, people: Iterable[PersonRecord]) -> Self:
        """The roster of some people."""
        return cls._from_texts(
            [
                f"{one.number}{_MIDDLE}{_BETWEEN.join(one.photos)}{_AFTER}" if one.photos else f"{one.number}{_EMPTY}"
                for one in people
            ]
        )

    @classmethod
    def of_digests(cls, numbers: Iterable[int], digests: bytes, ends: Sequence[int]) -> Self:
        """The roster of people who all have photos.

        Args:
            numbers: their numbers, from 1.
            digests: the keyed digests of all photos, person by person, 32 bytes each.
            ends: how many photos there are up to each person's last one.
        """
        # Each photo takes as many characters, so that a person's photos are a part of the whole text.
        whole, size, gap = digests.hex("-", 32).replace("-", _BETWEEN), 64 + len(_BETWEEN), len(_BETWEEN)
        parts = zip(numbers, [0, *ends], ends, strict=False)
        return cls._from_texts(
            [f"{number}{_MIDDLE}{whole[start * size : end * size - gap]}{_AFTER}" for number, start, end in parts]
        )

    @classmethod
    def _from_texts(cls, people: Sequence[str]) -> Self:
        """The roster of people, each as the text after `_FIRST`."""
        return cls((_FIRST + f",{_FIRST}".join(people)).encode()) if people else cls()

    @property
    def text(self) -> str:
        """What the record's file has inside the brackets of the list."""
        return self._text.decode()

    @cached_property
    def canonical(self) -> str:
        """The list as canonical JSON, which is the text without spaces and line ends."""
        return (b"[" + self._text.translate(None, b" \n") + b"]").decode()

    def photos(self) -> set[str]:
        """Keyed digests (hex) of everybody's photos."""
        return set(_PHOTO.findall(self.text))

    @cached_property
    def _people(self) -> tuple[PersonRecord, ...]:
        plain = json.loads(b"[" + self._text + b"]")
        return tuple(PersonRecord(number=one["number"], photos=tuple(one["photos"])) for one in plain)

    def __len__(self) -> int:
        """The number of people."""
        return self._text.count(_NUMBER)

    def __iter__(self) -> Iterator[PersonRecord]:
        """All people, each as a record."""
        return iter(self._people)

    @overload
    def __getitem__(self, place: int) -> PersonRecord: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[PersonRecord, ...]: ...

    def __getitem__(self, place: int | slice) -> PersonRecord | tuple[PersonRecord, ...]:
        """One person, or some."""
        return self._people[place]

    def __eq__(self, other: object) -> bool:
        """Whether the other one has the same people."""
        return isinstance(other, Roster) and self._text == other._text

    def __hash__(self) -> int:
        """The same for equal ones."""
        return hash(self._text)

    def __repr__(self) -> str:
        """How many people; their digests would fill a screen."""
        return f"<{len(self)} people>"

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let pydantic take a roster as it is, and read one from a list of people."""

        def read(value: Any, check: core_schema.ValidatorFunctionWrapHandler) -> Roster:
            return value if isinstance(value, Roster) else cls.of(check(value))

        return core_schema.no_info_wrap_validator_function(
            read,
            handler.generate_schema(tuple[PersonRecord, ...]),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda some: [one.plain() for one in some]),
        )


NOBODY = Roster()
"""The roster without people."""


def cut_retained(data: bytes) -> tuple[bytes, Roster | None]:
    """Take the retained people out of a record's bytes, so that they need not become Python objects.

    Returns:
        The record with an empty list in their place, and the people; the record as it is, and None, if the people's
        text is not exactly what `Roster` writes.
    """
    start = data.find(_FIELD + b"\n") + len(_FIELD)
    if start < len(_FIELD) or (found := _PEOPLE.match(data, start)) is None or not data.startswith(_END, found.end()):
        return data, None
    return data[:start] + data[found.end() + len(_END) - 1 :], Roster(data[start : found.end()])
