"""Names that a setting may take; other packages can add names to ours."""

from typing import Any

from pydantic_core import PydanticCustomError


class Names:
    """The names of one setting."""

    def __init__(self, *names: str) -> None:
        """Begin with our own names."""
        self._names = list(names)

    def __contains__(self, name: object) -> bool:
        """Whether it is one of them."""
        return name in self._names

    def add(self, name: str) -> None:
        """Add a name that the setting may take.

        Raises:
            ValueError: the name exists already.
        """
        if name in self._names:
            raise ValueError(f"the name {name} exists already")
        self._names.append(name)

    def checked(self, value: Any) -> Any:
        """The value, after checking that it is one of the names.

        Raises:
            PydanticCustomError: it is not one of them.
        """
        if value not in self._names:
            *first, last = (repr(name) for name in self._names)
            expected = f"{', '.join(first)} or {last}" if first else last
            # These are the words of pydantic's literals.
            raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected})
        return value
