"""The one error that is addressed to a person."""


class InputError(ValueError):
    """The input cannot be used: the message names the bad value and says what to do next.

    The command line prints the message without a traceback and exits with 2.
    """
