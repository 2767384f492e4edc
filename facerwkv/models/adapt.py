"""A shipped model's weights for a network of other classes, colours or image size."""

from typing import Any, cast

from torch import Tensor, nn

LUMINANCE = (0.299, 0.587, 0.114)
"""Grey of red, green and blue (ITU-R 601)."""


def adapted(trained: nn.Module, model: nn.Module) -> dict[str, Tensor]:
    """The weights of a trained network under the names of `model`, which has another `config`.

    A classifier of other classes stays `model`'s own. The first convolution of a grey model gives the same features of
    an RGB image, normalised by the same numbers, as of its grey one; position tables are interpolated.
    """
    weights, own = dict(trained.state_dict()), model.state_dict()
    before, after = cast(Any, trained.config), cast(Any, model.config)
    if before.num_classes != after.num_classes:
        last = f"{getattr(model, 'last', 'classifier')}."
        kept = {name: value for name, value in weights.items() if not name.startswith(last)}
        weights = kept | {name: value for name, value in own.items() if name.startswith(last)}
    if before.in_chans != after.in_chans:
        name, colours = f"{before.first_conv}.weight", after.in_chans
        shares = LUMINANCE if colours == len(LUMINANCE) else (1 / colours,) * colours
        weights[name] = weights[name].sum(1, keepdim=True) * weights[name].new_tensor(shares).view(1, -1, 1, 1)
    position: Any = getattr(model, "position", None)
    if position is not None and position.grid != cast(Any, trained.position).grid:
        tables = cast(Any, trained.position).resized(position.grid)
        weights |= {f"position.{name}": table for name, table in tables.items()}
    return weights
