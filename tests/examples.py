"""Results as tests of what is made of them take them."""

from facerwkv.inference.results import Face, Result

LABELS = ("anger", "happiness")
HAPPY = Face("happiness", 0.75, {"anger": 0.25, "happiness": 0.75}, (1, 2, 30, 40), 0.9)
ANGRY = Face("anger", 0.5, {"anger": 0.5, "happiness": 0.5})
RESULTS = [
    Result("a, b.jpg", "ok", [HAPPY, HAPPY], (60, 50)),
    Result("scene.jpg", "ok", [ANGRY], (60, 50)),
    Result("none.jpg", "no_face", size=(60, 50)),
    Result("bad.jpg", "unreadable", message="bad.jpg is empty."),
]
