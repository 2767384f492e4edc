"""What our networks and the compared ones share: features, what a classifier reads of them, logits; timm's methods."""

import re
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn


class Classifier(nn.Module):
    """Image → logits (B, num_classes), with timm's methods.

    A network sets `config`, `num_features` and `head_hidden_size`, defines `forward_features` (image → features) and
    `pool` (features → what the classifier reads, (B, head_hidden_size)), and ends its constructor with
    `reset_classifier`, or calls it where its weights start.
    """

    last: ClassVar[str] = "classifier"
    """The name of the layer that gives the logits."""
    tables: ClassVar[str] = "$^"
    """A pattern of the parameters that are tables over positions or channels, not matrices."""
    config: Any
    classifier: nn.Module
    num_features: int
    head_hidden_size: int
    forward_features: Callable[[Tensor], Tensor]
    pool: Callable[[Tensor], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features → logits (B, num_classes), or what the classifier reads."""
        x = self.pool(x)
        return x if pre_logits else self.get_classifier()(x)

    def get_classifier(self) -> nn.Module:
        return self.get_submodule(self.last)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new, untrained classifier; 0 classes give what it would read. `global_pool`: a name of config.pool, avg."""
        self.num_classes = num_classes
        pool = "mean" if global_pool == "avg" else global_pool
        changes = {"num_classes": num_classes} | ({} if pool is None else {"pool": pool})
        self.config = type(self.config).parse(self.config.model_dump() | changes)
        device = next(self.parameters()).device
        layer = nn.Linear(self.head_hidden_size, num_classes).to(device) if num_classes else nn.Identity()
        owner, _, name = self.last.rpartition(".")
        setattr(self.get_submodule(owner), name, layer)

    def no_weight_decay(self) -> set[str]:
        """Parameters that are tables over positions or channels, not matrices."""
        return {name for name, _ in self.named_parameters() if re.search(self.tables, name)}
