"""The only table of methods. Call `register` to add one of your own."""

from ireu_cli.params import METHODS as NAMES
from ireu_cli.unlearning.block.method import Block
from ireu_cli.unlearning.gated.method import Gated
from ireu_cli.unlearning.ireu.method import Published
from ireu_cli.unlearning.method import Method

_METHODS: dict[str, Method] = {
    method.name: method for method in (Gated(), Published("ireu"), Published("global"), Block())
}


def method_of(name: str) -> Method:
    """The method that `unlearn.method` names."""
    return _METHODS[name]


def register(method: Method) -> None:
    """Add a method, which `unlearn.method` may name from then on.

    Raises:
        ValueError: a method of that name exists already.
    """
    NAMES.add(method.name)
    _METHODS[method.name] = method
