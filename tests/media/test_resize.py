"""Resizing gives the same bytes with PyTorch in the process and without it."""

import sys

import numpy as np

from facerwkv.media.resize import resized

SIZES = ((1, 1), (3, 200), (7, 5), (48, 48), (48, 97), (150, 151), (400, 600), (333, 17), (1, 64))


def test_numpy_and_pytorch_give_the_same_bytes(monkeypatch):
    numbers = np.random.default_rng(0)
    for old in SIZES:
        noise = numbers.integers(0, 256, (*old, 3), dtype=np.uint8)
        for image in (noise, (noise > 127).astype(np.uint8) * 255, noise[:, ::-1].copy().swapaxes(0, 1)):
            for new in SIZES:
                by_torch = resized(image, new)
                with monkeypatch.context() as patch:
                    patch.setitem(sys.modules, "torch", None)
                    assert np.array_equal(resized(image, new), by_torch), (image.shape, new)
                assert by_torch.shape == (*new, 3)


def test_an_image_of_that_size_stays_itself():
    image = np.zeros((5, 6, 3), np.uint8)
    assert resized(image, (5, 6)) is image
