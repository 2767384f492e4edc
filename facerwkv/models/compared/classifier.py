"""What the compared systems' networks share: features, what a classifier reads of them, logits."""

from typing import Any

from torch import Tensor, nn


class Classifier(nn.Module):
    """Image → logits (B, num_classes), with timm's methods.

    A network sets `config`, `num_features` and `head_hidden_size`, defines `forward_features` and `pool`, and ends its
    constructor with `reset_classifier`.
    """

    config: Any
    num_features: int
    head_hidden_size: int
    classifier: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def pool(self, x: Tensor) -> Tensor:
        """Features → what the classifier reads, (B, head_hidden_size)."""
        raise NotImplementedError

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features → logits (B, num_classes), or what the classifier reads."""
        x = self.pool(x)
        return x if pre_logits else self.classifier(x)

    def get_classifier(self) -> nn.Module:
        return self.classifier

    def reset_classifier(self, num_classes: int) -> None:
        """A new, untrained classifier; 0 classes give what it would read."""
        self.num_classes = num_classes
        self.config = type(self.config).parse(self.config.model_dump() | {"num_classes": num_classes})
        device = next(self.parameters()).device
        self.classifier = nn.Linear(self.head_hidden_size, num_classes).to(device) if num_classes else nn.Identity()
