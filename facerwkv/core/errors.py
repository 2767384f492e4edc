"""The one error that is addressed to the user, and how values and errors of other libraries are quoted in it."""

from reprlib import Repr

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 80


class InputError(ValueError):
    """The input cannot be used: the message names the bad value and says what to do next.

    The command line prints the message without a traceback and exits with 2.
    """


def shown(value: object) -> str:
    """A value as a message quotes it: its repr, a long one with dots for its middle."""
    return _SHORT.repr(value)


def first_line(error: BaseException) -> str:
    """An error of another library in one line: the first of its message, or its type's name where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
