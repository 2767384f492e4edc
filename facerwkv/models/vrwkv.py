"""Vision-RWKV: image → logits, and the public checkpoints' key names.

Source: Vision-RWKV (arXiv 2403.02308) and OpenGVLab's code, where images have ImageNet's mean and deviation.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from facerwkv.core.errors import InputError
from facerwkv.mixers.base import truncated_normal
from facerwkv.models.arrays import read_weights
from facerwkv.models.config import VRWKVConfig
from facerwkv.models.facerwkv import FaceRWKV


class VRWKV(FaceRWKV):
    """FaceRWKV's frame with a norm before the first block and after the last, and none in the stem."""

    def __init__(self, config: VRWKVConfig):
        super().__init__(config)
        self.stem.norm = nn.Identity()  # type: ignore[assignment]
        self.norm_first, self.norm = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        for name, parameter in self.named_parameters():
            if name == "position.table":
                nn.init.zeros_(parameter)
            if name.endswith("mix.scale"):
                nn.init.constant_(parameter, config.layer_scale)
        truncated_normal(self.classifier)


NAMES = {  # pattern of a public key → ours
    r"patch_embed\.projection\.(weight|bias)": r"stem.proj.\1",
    r"pos_embed": r"position.table",
    r"layers\.0\.ln0\.(weight|bias)": r"norm_first.\1",
    r"ln1\.(weight|bias)": r"norm.\1",
    r"head\.(?:fc\.)?(weight|bias)": r"classifier.\1",
    r"layers\.(\d+)\.att\.spatial_(decay|first)": r"blocks.\1.time_mix.time_\2",
    r"layers\.(\d+)\.att\.(key|value|receptance|output)\.weight": r"blocks.\1.time_mix.\2.weight",
    r"layers\.(\d+)\.ffn\.(key|value|receptance)\.weight": r"blocks.\1.channel_mix.\2.weight",
    r"layers\.(\d+)\.att\.spatial_mix_k": r"blocks.\1.time_mix.mix_key",
    r"layers\.(\d+)\.att\.spatial_mix_v": r"blocks.\1.time_mix.mix_value",
    r"layers\.(\d+)\.att\.spatial_mix_r": r"blocks.\1.time_mix.mix_receptance",
    r"layers\.(\d+)\.ffn\.spatial_mix_k": r"blocks.\1.channel_mix.mix_key",
    r"layers\.(\d+)\.ffn\.spatial_mix_r": r"blocks.\1.channel_mix.mix_receptance",
    r"layers\.(\d+)\.att\.key_norm\.(weight|bias)": r"blocks.\1.time_mix.norm.\2",
    r"layers\.(\d+)\.ffn\.key_norm\.(weight|bias)": r"blocks.\1.channel_mix.norm.\2",
}
BEFORE = {  # where the norms come before the mixers, as in the tiny model
    r"layers\.(\d+)\.ln([12])\.(weight|bias)": r"blocks.\1.norm\2.\3",
}
AFTER = {  # where they come after them, with scales
    r"layers\.(\d+)\.ln1\.(weight|bias)": r"blocks.\1.time_mix.after.\2",
    r"layers\.(\d+)\.ln2\.(weight|bias)": r"blocks.\1.channel_mix.after.\2",
    r"layers\.(\d+)\.gamma1": r"blocks.\1.time_mix.scale",
    r"layers\.(\d+)\.gamma2": r"blocks.\1.channel_mix.scale",
}


def convert_vrwkv(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a public Vision-RWKV checkpoint under our names, in our shapes.

    Keys may start with "backbone.". InputError names a key that Vision-RWKV does not have.
    """
    weights = {key.removeprefix("backbone."): value for key, value in state_dict.items()}
    names = NAMES | (AFTER if "layers.0.gamma1" in weights else BEFORE)
    ours = {}
    for key, value in weights.items():
        pattern = next((pattern for pattern in names if re.fullmatch(pattern, key)), None)
        if pattern is None:
            raise InputError(f"{key!r} is not a weight of Vision-RWKV (vrwkv_tiny, vrwkv_small, vrwkv_base).")
        ours[re.sub(pattern, names[pattern], key)] = value.flatten() if "spatial_mix" in key else value
    return ours


def load_vrwkv(model: nn.Module, source: str | Path) -> None:
    """Copy a public checkpoint (a file for `read_weights`, with OpenGVLab's key names) into a model of its shape."""
    from facerwkv.models.checkpoint import load_weights

    load_weights(model, convert_vrwkv(read_weights(source)), str(source))
