"""Names that a setting may take, where somebody else's may join ours."""

from typing import Any

from pydantic_core import PydanticCustomError


class Names:
    """The names of one setting."""

    def __init__(self, *names: str) -> None:
        """Begin with our own."""
        self._names = list(names)

    def __contains__(self, name: object) -> bool:
        """Whether it is one of them."""
        return name in self._names

    def add(self, name: str) -> None:
        """Let the setting take another name.

        Raises:
            ValueError: it is there already.
        """
        if name in self._names:
            raise ValueError(f"there is one called {name} already")
        self._names.append(name)

    def checked(self, value: Any) -> Any:
        """The value, which has to be one of them.

        Raises:
            PydanticCustomError: it is none.
        """
        if value not in self._names:
            *first, last = (repr(name) for name in self._names)
            expected = f"{', '.join(first)} or {last}" if first else last
            # In the words of pydantic's literals.
            raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected})
        return value
