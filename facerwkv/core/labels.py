"""The expressions in one order, and the names that data sets give them."""

from collections.abc import Iterable

from facerwkv.core.errors import InputError

EXPRESSIONS = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
EXPRESSIONS_8 = (*EXPRESSIONS, "contempt")

ALIASES = {
    "anger": ("angry", "an", "ang"),
    "disgust": ("disgusted", "di", "dis"),
    "fear": ("fearful", "afraid", "scared", "fe", "fea"),
    "happiness": ("happy", "joy", "ha", "hap"),
    "neutral": ("neutrality", "ne", "neu"),
    "sadness": ("sad", "sa"),
    "surprise": ("surprised", "su", "sur"),
    "contempt": ("contemptuous", "con"),
}

_CANONICAL = {alias: name for name, aliases in ALIASES.items() for alias in (name, *aliases)}


def canonical(name: str, labels: Iterable[str] = EXPRESSIONS_8) -> str:
    """The label that `name` means: "Angry" is "anger". Case and surrounding spaces do not matter.

    A name that is listed in `labels` letter for letter is its own label, so that users' own classes work too.
    Raises InputError, which lists the known names, for any other name.
    """
    labels = tuple(labels)
    if name in labels:
        return name
    label = _CANONICAL.get(name.strip().lower(), name.strip().lower())
    if label in labels:
        return label
    raise InputError(
        f"Unknown label {name!r}. Known labels: {', '.join(labels)}. "
        "For your own classes, list them all: data.labels=[first, second, ...]; or take those that there are: "
        "data.labels=auto."
    )
