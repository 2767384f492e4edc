"""The one error that is addressed to a person."""


class InputError(ValueError):
    """What a person gave cannot be used: the message names it and says what to do next.

    The command line prints the message without a traceback and exits with 2.
    """
