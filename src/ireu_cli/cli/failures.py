"""The words for each kind of error."""

import errno
from collections.abc import Iterator
from typing import Any

import typer

from ireu_cli.errors import IreuError, UserError, interrupted

_NO_MEMORY = (
    "out of memory",
    "allocate memory",
    "not enough memory",
    "insufficient memory",
    "unable to allocate",
    "failed to allocate",
    "bad_alloc",
)
"""What libraries say when memory is short, each in a different kind of exception."""
_MOST_CAUSES = 8


def told_of(error: BaseException) -> IreuError | None:
    """The error of ours for an exception of any kind; None for a bug."""
    if any(_is_of_memory(each) for each in chain(error)):
        return UserError(
            "There is not enough memory",
            "Use a smaller run.batch_size or data.max_megapixels (--set), another --device, or a larger machine",
        )
    if isinstance(error, IreuError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return interrupted()
    if isinstance(error, OSError):
        return refused(error)
    if _is_no_number(error):
        return UserError(
            "A figure of the result is not a number, so no result was written",
            "Check that the encoder is undamaged and that the photos differ, or use float32, which overflows less "
            "than float16",
        )
    return None


def refused(error: OSError, name: str | None = None) -> UserError:
    """The error for a call that the system or a library refused, with the path if it is known.

    Args:
        error: the exception.
        name: gives the words for a path that must not be shown.
    """
    why = error.strerror or type(error).__name__
    if error.errno == errno.EMFILE:
        return UserError(f"Too many files are open ({why})", "Raise the limit with `ulimit -n`")
    if name or error.filename is not None:
        who = name or _text(error.filename)
        return UserError(
            f"{who} cannot be used ({why})", "Check the path, its permissions, and the free space on the disk"
        )
    if error.errno is None:
        return UserError(f"A library cannot go on ({type(error).__name__})", "Run it again with -v to see the cause")
    return UserError(f"The system refused a call ({why})", "Run it again with -v to see the cause")


def usage_of(error: BaseException) -> str | None:
    """The message for a command line that cannot be read, in lines; None for other errors."""
    problem: Any = error
    if not isinstance(error, typer.BadParameter.__mro__[1]):
        return None
    message = problem.format_message()
    param = getattr(problem, "param", None)
    if param is not None and problem.message.endswith("is empty"):
        name = (param.opts or [param.name])[0] if param.param_type_name == "option" else f"The argument {param.name}"
        message = f"{name} is empty. Name a file or folder"
    if type(error).__name__ == "NoArgsIsHelpError":
        return str(message)
    usage = (
        "" if problem.ctx is None else f"{problem.ctx.get_usage()}\nTry '{problem.ctx.command_path} -h' for help.\n\n"
    )
    return f"{usage}Error: {message}"


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes, including those that are not shown by default."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen and len(seen) <= _MOST_CAUSES:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__


def causes(error: BaseException) -> list[str]:
    """The causes of an error, one a line."""
    first = 1 if isinstance(error, IreuError) else 0
    return [f"  caused by {type(each).__name__}: {str(each)[:1000]}" for each in list(chain(error))[first:]]


def _is_no_number(error: BaseException) -> bool:
    """Whether the error is a record's refusal of NaN or infinity."""
    if not isinstance(error, ValueError):
        return False
    problem: Any = error
    if hasattr(error, "errors"):
        return all(one.get("type") == "finite_number" for one in problem.errors())
    return "not JSON compliant" in str(error)


def _is_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    if type(error).__name__ == "OutOfMemoryError":
        return True
    # Our own sentences are not searched: they may name a file.
    return isinstance(error, Exception) and not isinstance(error, IreuError | OSError) and _says_memory(str(error))


def _says_memory(text: str) -> bool:
    lower = text.lower()
    return any(words in lower for words in _NO_MEMORY)


def _text(filename: Any) -> str:
    return filename.decode(errors="surrogateescape") if isinstance(filename, bytes) else str(filename)
