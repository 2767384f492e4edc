"""A decoded frame → the upright RGB image that a player shows: shape, turn, fields, transparency, range, transfer."""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import numpy as np

from facerwkv.media.container import pyav

_PQ, _HLG = 16, 18  # of ITU-T H.273, as FFmpeg counts transfer characteristics
_TO_BT709 = np.array([[1.6605, -0.1246, -0.0182], [-0.5876, 1.1329, -0.1006], [-0.0728, -0.0083, 1.1187]], np.float32)
"""Linear BT.2020 → BT.709 (ITU-R BT.2087), for rows of red, green, blue."""
_WHITE, _PEAK, _KNEE = 100.0, 1000.0, 0.3
"""Candela per square metre of SDR's white and of HDR's brightest, and up to where in SDR nothing is compressed."""


def display_size(track: Any, width: int, height: int) -> tuple[int, int]:
    """The size at which frames of `width` x `height` pixels have square ones: one side grows, as in browsers."""
    aspect = float(track.sample_aspect_ratio or 1)
    return round(width * max(1.0, aspect)), round(height * max(1.0, 1 / aspect))


def to_rgb(frame: Any, size: tuple[int, int]) -> np.ndarray:
    """The image, uint8 (H, W, 3) RGB and upright, of a frame that has `size` (width, height) before it is turned.

    HDR (PQ, HLG) is mapped to SDR; transparency lies over white, as in images.
    """
    hdr = frame.color_trc in (_PQ, _HLG)
    clear = any(component.is_alpha for component in frame.format.components)
    kind = "rgb48le" if hdr else "rgba" if clear else "rgb24"
    rgb = frame.reformat(*size, format=kind).to_ndarray()
    if hdr:
        rgb = _tone_mapped(rgb, frame.color_trc)
    elif clear:
        alpha = rgb[..., 3:].astype(np.uint16)
        rgb = ((rgb[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return _turned(rgb, frame)


def deinterlaced(frames: Iterable[Any]) -> Iterator[Any]:
    """The frames; from the first interlaced one on through bwdif, which leaves progressive ones as they are."""
    av, graph = pyav(), None
    for frame in frames:
        if graph is None and frame.interlaced_frame:
            graph = av.filter.Graph()
            base = f"{frame.time_base.numerator}/{frame.time_base.denominator}"
            source = graph.add(
                "buffer",
                f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base={base}:"
                f"colorspace={int(frame.colorspace)}:range={int(frame.color_range)}",
            )
            chain = [source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink")]
            graph.link_nodes(*chain).configure()
        if graph is None:
            yield frame
            continue
        graph.push(frame)
        yield from _pulled(graph)
    if graph is not None:
        graph.push(None)
        yield from _pulled(graph)


def _pulled(graph: Any) -> Iterator[Any]:
    av = pyav()
    while True:
        try:
            yield graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return


def _turned(rgb: np.ndarray, frame: Any) -> np.ndarray:
    """Turned and mirrored as the frame's display matrix says: quarter turns, as far as pixels go."""
    from av.sidedata.sidedata import Type

    matrix = next((data for data in frame.side_data if data.type == Type.DISPLAYMATRIX), None)
    if matrix is None:
        return rgb
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()  # x' = a x + c y, y' = b x + d y
    if abs(b) > abs(a):
        rgb, a, d = rgb.swapaxes(0, 1), c, b
    return np.ascontiguousarray(rgb[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _tone_mapped(rgb: np.ndarray, transfer: int) -> np.ndarray:
    """SDR, uint8, of PQ's or HLG's BT.2020 values, uint16 (H, W, 3).

    Darker than the knee nothing changes; what is brighter is compressed along a hyperbola, all three colours alike, up
    to the peak (FFmpeg's filter tonemap calls it mobius).
    """
    light = _light(transfer)[rgb]
    if transfer == _HLG:  # a scene's light → a screen's
        light *= (
            _PEAK / _WHITE * np.maximum(light @ np.array([0.2627, 0.678, 0.0593], np.float32), 1e-6)[..., None] ** 0.2
        )
    light = np.maximum(light @ _TO_BT709, 0)
    brightest = np.maximum(light.max(-1, keepdims=True), 1e-6)
    peak, knee = _PEAK / _WHITE, _KNEE
    a = -(knee**2) * (peak - 1) / (knee**2 - 2 * knee + peak)
    b = (knee**2 - 2 * knee * peak + peak) / (peak - 1)
    mapped = (b**2 + 2 * b * knee + knee**2) / (b - a) * (brightest + a) / (brightest + b)
    light *= np.where(brightest > knee, mapped, brightest) / brightest
    return (255 * light.clip(0, 1) ** (1 / 2.4) + 0.5).astype(np.uint8)


@cache
def _light(transfer: int) -> np.ndarray:
    """Of each 16-bit value, float32 (65536,): PQ's light in whites of SDR (SMPTE ST 2084), or HLG's, 0 to 1."""
    value = np.arange(65536) / 65535
    if transfer == _HLG:
        return np.where(
            value <= 0.5, value**2 / 3, (np.exp((value - 0.55991073) / 0.17883277) + 0.28466892) / 12
        ).astype(np.float32)
    power = value ** (1 / 78.84375)
    return (
        10_000 / _WHITE * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
    ).astype(np.float32)
