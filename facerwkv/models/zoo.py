"""The models by name. No torch is loaded before a model is built, so that names and options are checked at once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facerwkv.core.errors import InputError, shown
from facerwkv.core.files import read_json
from facerwkv.core.packages import pytorch
from facerwkv.models.config import FRAME, BackboneConfig, ModelConfig, VRWKVConfig

if TYPE_CHECKING:
    from torch import nn

SMALL: dict[str, Any] = {"width": 128, "depth": 2, "heads": 2}
MEDIUM: dict[str, Any] = {"width": 256, "depth": 4, "heads": 4}
LARGE: dict[str, Any] = {"width": 512, "depth": 6, "heads": 8}
VIT_TINY: dict[str, Any] = {"width": 192, "depth": 12, "heads": 3}
VIT_SMALL: dict[str, Any] = {"width": 384, "depth": 12, "heads": 6}
VIT_BASE: dict[str, Any] = {"width": 768, "depth": 12, "heads": 12}
FULL: dict[str, Any] = {"mixer": "rwkv1", "position": "unused"}
HYBRID: dict[str, Any] = {"stem": "resnet", "patch_size": 5}
TRANSFORMER: dict[str, Any] = {"mixer": "attention", "position": "learned"}
NARROW_SMALL, NARROW_MEDIUM, NARROW_LARGE = (
    size | FULL | {"time_mix_dim": size["heads"]} for size in (SMALL, MEDIUM, LARGE)
)
PAPER = "FaceRWKV (2023), Table 1; github.com/lukasVierling/COMP4771"
NARROW = (
    "The published code sets the time mix's width (n_attn) to the number of heads, so that it mixes {time_mix_dim} of "
    "{width} channels; upstream RWKV-1 uses the full width. Only this width reproduces the paper's parameter counts."
)

VISION = "Vision-RWKV (arXiv 2403.02308); github.com/OpenGVLab/Vision-RWKV"
FINCH = "Eagle and Finch (arXiv 2404.05892), in the paper's frame"
GOOSE = "Goose (arXiv 2503.14456), in the paper's frame"
DOVE = "RWKV (arXiv 2305.13048), in the paper's frame"
CONTROL = "Attention Is All You Need (arXiv 1706.03762), pre-norm, in the paper's frame"
ATTENTION = ": softmax attention in the paper's stem and head"
TRAINED = f"this project, trained with the recipe {{}}; blocks: {VISION}"
FER: dict[str, Any] = FRAME | {  # what FER2013's grey images of 48 pixels need: early convolutions, and few tokens
    "image_size": (48, 48),
    "in_chans": 1,
    "stem": "residual",
    "patch_size": 8,
    "depth": 4,
    "drop_path_rate": 0.1,
}
LIGHT: dict[str, Any] = FER | {"stem": "vgg", "patch_size": 4, "width": 128, "kind": VRWKVConfig, "recipe": "fer_light"}
LIGHT_SOURCE = f"this project, recipe fer_light; blocks: {VISION}"
VIT = "An Image is Worth 16x16 Words (arXiv 2010.11929); timm"
RESNET = "Deep Residual Learning (arXiv 1512.03385); timm"
LEE = (
    "Fine-tuned in CAER (ICCV 2019), which states neither depth, image size nor crop. FaceRWKV's Table 4 quotes it, "
    "with the parameters of a public re-implementation's networks, some of them counted with 1000 classes."
)
UPSTREAM = "RWKV-v1's own width, in the paper's frame"
UPSTREAM_START = (
    "It starts from zeros and orthogonal matrices, as RWKV-v1 does; the published narrow models start from PyTorch's "
    "default, since their code never calls RWKV-v1's initialisation."
)
POST_NORM = (
    "Pre-norm, GELU, no dropout, so that it differs from FaceRWKV in what mixes tokens alone. The authors' control is "
    "PyTorch's encoder layer: post-norm, ReLU, dropout 0.1; batches of 32, a learning rate of 0.0008, 20 epochs. They "
    "report no number for it."
)
IMAGENET = "Its authors trained it on ImageNet for 300 epochs; the recipe here is our own, for fewer, smaller images."
RECIPES = {PAPER: "paper", UPSTREAM: "paper", CONTROL: "paper"}
"""A model's source → the recipe of the models from there."""
BACKBONE = "compared.backbones.build_backbone"
NETWORKS: dict[type, str] = {
    ModelConfig: "facerwkv.FaceRWKV",
    VRWKVConfig: "vrwkv.VRWKV",
    BackboneConfig: BACKBONE,
}


@dataclass(frozen=True)
class Model:
    """A line of MODELS: what builds the model, from which configuration, and what a reader should know of it.

    network: the file below facerwkv.models and the class or function in it that builds the model, imported when it is
    asked for. own: the configuration; None for the default of the class that has the network's name and "Config".
    licence: of the code; for weights see `licence_of`. known: what is known to be wrong with what was published.
    published: data set → accuracy in per cent, as claimed. recipe: the shipped one with which it is trained as its
    authors trained it; modern where they trained nothing like it. deviates: what differs here from theirs, and why.
    """

    about: str
    source: str
    network: str = "facerwkv.FaceRWKV"
    own: ModelConfig | BackboneConfig | None = None
    licence: str = "Apache-2.0"
    known: str = ""
    published: Mapping[str, float] = field(default_factory=dict)
    recipe: str = "modern"
    deviates: str = ""

    @property
    def build(self) -> Callable[[Any], "nn.Module"]:
        """Config → model with fresh weights."""
        file, _, name = self.network.rpartition(".")
        pytorch("A network to train, or to look into,")
        return getattr(import_module(f"facerwkv.models.{file}"), name)

    @property
    def config(self) -> Any:
        """An ImageConfig, or the model's own kind of it."""
        file, _, name = self.network.rpartition(".")
        return self.own or getattr(import_module(f"facerwkv.models.{file}"), f"{name}Config")()

    def configured(self, options: Mapping[str, Any], where: str = "") -> Any:
        """The configuration with fields changed, also under timm's names. InputError for an unknown field."""
        options = {TIMMS_NAMES.get(key, key): value for key, value in options.items()}
        if options.get("pool") == "avg":
            options["pool"] = "mean"
        return type(self.config).parse(self.config.model_dump() | options, where)


def _line(
    about: str,
    source: str = PAPER,
    kind: type[ModelConfig | BackboneConfig] = ModelConfig,
    caer_s: float | None = None,
    known: str = "",
    licence: str = "Apache-2.0",
    recipe: str = "",
    deviates: str = "",
    **options: Any,
) -> Model:
    """A line whose configuration loads no torch: of `kind`, which tells the network, with these fields."""
    config = kind(**options)
    if isinstance(config, ModelConfig) and config.time_mix_dim:
        known = " ".join(filter(None, (known, NARROW.format(**config.model_dump()))))
    published = {"CAER-S": caer_s} if caer_s else {}
    recipe = recipe or RECIPES.get(source, "finetune" if kind is BackboneConfig else "modern")
    return Model(about, source, NETWORKS[kind], config, licence, known, published, recipe, deviates)


MODELS: dict[str, Model] = {
    "facerwkv_small": _line(
        "The paper's small model", caer_s=61.41, known="No logged run shows its published accuracy.", **NARROW_SMALL
    ),
    "facerwkv_medium": _line("The paper's medium model", caer_s=70.41, **NARROW_MEDIUM),
    "facerwkv_large": _line(
        "The paper's large model; 8 heads, not the 6 that Table 1 prints",
        caer_s=70.82,
        known="Its curve in figure 4 is that of the test images, with a tenth more images in training than Medium had.",
        **NARROW_LARGE,
    ),
    "facerwkv_hybrid_small": _line("ResNet-50 stem and the small model", **NARROW_SMALL | HYBRID),
    "facerwkv_hybrid_medium": _line("ResNet-50 stem and the medium model", **NARROW_MEDIUM | HYBRID),
    "facerwkv_hybrid": _line(
        "The paper's hybrid, unfrozen: ResNet-50 stem, large", caer_s=73.02, **NARROW_LARGE | HYBRID
    ),
    "facerwkv_hybrid_frozen": _line(
        "The paper's hybrid with a frozen stem",
        caer_s=70.30,
        known="The authors froze the stem's weights and let its batch-norm statistics follow the training images.",
        **NARROW_LARGE | HYBRID | {"stem": "resnet_frozen"},
    ),
    "facerwkv_small_identity": _line(
        'The paper\'s "w/o RWKV": ResNet-50 stem, no mixing, all tokens flattened into the head',
        caer_s=14.29,
        known="Its loss stayed at ln 7 from the first epoch: it was never trained, so it shows nothing about mixing.",
        **SMALL | FULL | HYBRID | {"mixer": "identity", "pool": "flatten"},
    ),
    "facerwkv_small_fullwidth": _line(
        "Small with a full-width RWKV-1", UPSTREAM, deviates=UPSTREAM_START, **SMALL | FULL
    ),
    "facerwkv_medium_fullwidth": _line(
        "Medium with a full-width RWKV-1", UPSTREAM, deviates=UPSTREAM_START, **MEDIUM | FULL
    ),
    "facerwkv_large_fullwidth": _line(
        "Large with a full-width RWKV-1", UPSTREAM, deviates=UPSTREAM_START, **LARGE | FULL
    ),
    "facerwkv4_small": _line("Small with RWKV-4, linear in the number of patches", DOVE, **SMALL),
    "facerwkv4_medium": _line("Medium with RWKV-4, linear in the number of patches", DOVE, **MEDIUM),
    "facerwkv4_large": _line("Large with RWKV-4, linear in the number of patches", DOVE, **LARGE),
    "facerwkv5_small": _line("Small with RWKV-5", FINCH, **SMALL | {"mixer": "rwkv5"}),
    "facerwkv5_medium": _line("Medium with RWKV-5", FINCH, **MEDIUM | {"mixer": "rwkv5"}),
    "facerwkv5_large": _line("Large with RWKV-5", FINCH, **LARGE | {"mixer": "rwkv5"}),
    "facerwkv6_small": _line("Small with RWKV-6", FINCH, **SMALL | {"mixer": "rwkv6"}),
    "facerwkv6_medium": _line("Medium with RWKV-6", FINCH, **MEDIUM | {"mixer": "rwkv6"}),
    "facerwkv6_large": _line("Large with RWKV-6", FINCH, **LARGE | {"mixer": "rwkv6"}),
    "facerwkv7_small": _line("Small with RWKV-7", GOOSE, **SMALL | {"mixer": "rwkv7"}),
    "facerwkv7_medium": _line("Medium with RWKV-7", GOOSE, **MEDIUM | {"mixer": "rwkv7"}),
    "facerwkv7_large": _line("Large with RWKV-7", GOOSE, **LARGE | {"mixer": "rwkv7"}),
    "facerwkv4_vit_tiny": _line("RWKV-4 in ViT-Tiny's size", DOVE, **VIT_TINY),
    "facerwkv4_vit_small": _line("RWKV-4 in ViT-Small's size", DOVE, **VIT_SMALL),
    "facerwkv4_vit_base": _line("RWKV-4 in ViT-Base's size", DOVE, **VIT_BASE),
    "facerwkv6_vit_tiny": _line("RWKV-6 in ViT-Tiny's size", FINCH, **VIT_TINY | {"mixer": "rwkv6"}),
    "facerwkv6_vit_small": _line("RWKV-6 in ViT-Small's size", FINCH, **VIT_SMALL | {"mixer": "rwkv6"}),
    "facerwkv6_vit_base": _line("RWKV-6 in ViT-Base's size", FINCH, **VIT_BASE | {"mixer": "rwkv6"}),
    "facerwkv7_vit_tiny": _line("RWKV-7 in ViT-Tiny's size", GOOSE, **VIT_TINY | {"mixer": "rwkv7"}),
    "facerwkv7_vit_small": _line("RWKV-7 in ViT-Small's size", GOOSE, **VIT_SMALL | {"mixer": "rwkv7"}),
    "facerwkv7_vit_base": _line("RWKV-7 in ViT-Base's size", GOOSE, **VIT_BASE | {"mixer": "rwkv7"}),
    "transformer_small": _line(
        f"Small{ATTENTION}", CONTROL, deviates=POST_NORM, **SMALL | TRANSFORMER, hidden=SMALL["width"]
    ),
    "transformer_medium": _line(
        f"Medium{ATTENTION}", CONTROL, deviates=POST_NORM, **MEDIUM | TRANSFORMER, hidden=MEDIUM["width"]
    ),
    "transformer_large": _line(
        f"Large{ATTENTION}", CONTROL, deviates=POST_NORM, **LARGE | TRANSFORMER, hidden=LARGE["width"]
    ),
    "vrwkv_tiny": _line(
        "Vision-RWKV-Tiny: bidirectional WKV, quad shift",
        VISION,
        VRWKVConfig,
        deviates=IMAGENET,
        **FRAME | {"width": 192},
    ),
    "vrwkv_small": _line(
        "Vision-RWKV-Small",
        VISION,
        VRWKVConfig,
        deviates=IMAGENET,
        **FRAME | {"width": 384, "mixer": "vrwkv_post", "drop_path_rate": 0.3},
    ),
    "vrwkv_base": _line(
        "Vision-RWKV-Base",
        VISION,
        VRWKVConfig,
        deviates=IMAGENET,
        **FRAME | {"width": 768, "mixer": "vrwkv_post", "layer_scale": 1e-5, "drop_path_rate": 0.5},
    ),
    "facerwkv_fer": _line(
        "The shipped model: VGG's convolutions with batch norm, then Vision-RWKV",
        TRAINED.format("fer"),
        VRWKVConfig,
        recipe="fer",
        **FER | {"stem": "vgg", "width": 256, "depth": 2},
    ),
    "facerwkv_fer_tiny": _line(
        "The smaller and faster shipped model",
        TRAINED.format("fer_tiny"),
        VRWKVConfig,
        recipe="fer_tiny",
        **FER | {"width": 96},
    ),
    "facerwkv_ferplus": _line(
        "The shipped model for eight expressions, contempt among them",
        TRAINED.format("ferplus"),
        VRWKVConfig,
        recipe="ferplus",
        **FER | {"stem": "vgg", "width": 256, "depth": 2, "num_classes": 8},
    ),
    "facerwkv_fer_light": _line("RWKV on 144 tokens behind a light stem; no weights yet", LIGHT_SOURCE, **LIGHT),
    "facerwkv_fer_light_conv": _line("Its twin of 3 x 3 convolutions", LIGHT_SOURCE, **LIGHT | {"mixer": "conv"}),
    "caer_net_s": Model(
        "CAER-Net-S: a face stream, a context stream that does not see the face, attention, adaptive fusion",
        "CAER (ICCV 2019); github.com/ndkhanh360/CAER",
        "compared.caer_net.CAERNet",
        known="The public code that this agrees with claims 76.81 % and chose its epoch on a third of CAER-S's test "
        "images; its single streams still let the fusion see both, those here do not.",
        published={"CAER-S": 73.51},
        recipe="caer_net_s",
        deviates="Both inputs have 112 x 112 pixels, since one batch is one tensor, and faces are cut out square. The "
        "public code resizes a face's box as it is to 96 x 96, and the context to 128 x 171, of which it cuts "
        "112 x 112, at random in training. The parameters are the same.",
    ),
    "poster_v2": Model(
        "POSTER++: IR-50 and MobileFaceNet, cross-attention at three levels, transformer",
        "POSTER++ (arXiv 2301.12149); github.com/Talented-Q/POSTER_V2",
        "compared.poster.Poster",
        known="Of the 58,316,594 parameters in the published checkpoint, 14.5 million never run and are left "
        "out. Its best epoch was chosen on the test set; users report about 91 % on RAF-DB, not 92.21. How CAER-S "
        "was cropped is not stated. Without its face networks' weights (model.parts) it starts from scratch.",
        published={"CAER-S": 93.00, "RAF-DB": 92.21, "AffectNet-7": 67.49, "AffectNet-8": 63.77},
        recipe="poster_v2",
        deviates="The landmark network is frozen, as published, where it starts from its own weights, and learns where "
        "there are none. Its batch norms are then fixed; in the published code they follow the training batches. What "
        "is erased takes the image's mean colour, not ImageNet's.",
    ),
    "patt_lite": Model(
        "PAtt-Lite: truncated MobileNetV1, patches, attention between the patches of one image",
        "PAtt-Lite (IEEE Access 2024); github.com/JLREx/PAtt-Lite",
        "compared.patt_lite.PAttLite",
        known='As published (variant="as_published") the images of a batch attend to each other, and its accuracies '
        "were measured in batches sorted by class: they are not comparable with others. Its authors admit the error "
        "and withdrew the weights.",
        published={"RAF-DB": 95.05, "FER2013": 92.50, "FERPlus": 95.55, "CK+": 100.0},
        recipe="patt_lite",
        deviates="Trained from scratch in one stage, with a cosine: published are a MobileNet from ImageNet, frozen at "
        "first and then fine-tuned, and a rate lowered when validation stalls. Keras' weights are not at hand.",
    ),
    "alexnet": _line(
        "AlexNet",
        "arXiv 1404.5997; torchvision",
        BackboneConfig,
        licence="BSD-3-Clause",
        caer_s=61.73,
        known=LEE,
        architecture="alexnet",
    ),
    "vgg19": _line(
        "VGG-19", "arXiv 1409.1556; timm", BackboneConfig, caer_s=64.85, known=LEE, architecture="vgg19.tv_in1k"
    ),
    "resnet18": _line("ResNet-18", RESNET, BackboneConfig, architecture="resnet18.tv_in1k"),
    "resnet34": _line("ResNet-34", RESNET, BackboneConfig, architecture="resnet34.tv_in1k"),
    "resnet50": _line("ResNet-50", RESNET, BackboneConfig, architecture="resnet50.tv_in1k"),
    "resnet152": _line("ResNet-152", RESNET, BackboneConfig, caer_s=68.46, known=LEE, architecture="resnet152.tv_in1k"),
    "vit_tiny": _line("ViT-Tiny, patches of 16", VIT, BackboneConfig, architecture="vit_tiny_patch16_224"),
    "vit_small": _line("ViT-Small, patches of 16", VIT, BackboneConfig, architecture="vit_small_patch16_224"),
    "vit_base": _line("ViT-Base, patches of 16", VIT, BackboneConfig, architecture="vit_base_patch16_224"),
}
TIMMS_NAMES = {"img_size": "image_size", "global_pool": "pool"}
HUB = "hf-hub:"  # before a repository's name on huggingface.co
TIMM = "timm:"  # before the name of any of timm's models


SHIPPED = Path(__file__).with_name("weights")
CONFIG = "config.json"


def shipped() -> list[str]:
    """The names of the checkpoints that come with the package."""
    return sorted(folder.name for folder in SHIPPED.iterdir() if (folder / CONFIG).is_file())


def licence_of(name: str) -> str:
    """The licence of a shipped checkpoint's weights, as its card says; of other models that of their code."""
    if name in shipped():
        return read_json(SHIPPED / name / CONFIG)["card"]["licence"]
    return model_line(name).licence


def without_weights(name: str) -> str:
    """What is said where weights are wanted of a model that has none."""
    return f"{name} has no weights: train it, facerwkv train --model {name}, or choose {' or '.join(shipped())}."


def list_models(pattern: str = "*") -> list[str]:
    """The names in MODELS that match a shell pattern."""
    return [name for name in MODELS if fnmatch(name, pattern)]


def model_line(name: str) -> Model:
    """The line of MODELS called `name`, or one for "timm:NAME". InputError has names like it."""
    if name.startswith(TIMM):
        from facerwkv.models.compared.backbones import backbone_config

        architecture = name.removeprefix(TIMM)
        return Model(f"timm's {architecture}", "timm", BACKBONE, backbone_config(architecture), recipe="finetune")
    if name not in MODELS:
        some = ", ".join(get_close_matches(name, MODELS, 3) or list(MODELS)[:3])
        known = f"{some}, others in `facerwkv models list`, and {TIMM}NAME for timm's"
        raise InputError(f"Unknown model {shown(name)}. Known models: {known}.")
    return MODELS[name]


def create_model(
    name: str,
    *,
    pretrained: bool = False,
    stem_weights: str | None = None,
    parts: Mapping[str, str] | None = None,
    **options: Any,
) -> "nn.Module":
    """Build a model by name.

    `options` change fields of its config; timm's `img_size` is `image_size`, and `global_pool="avg"` is `pool="mean"`.
    `pretrained` starts a network of timm or torchvision from ImageNet, over the network the first time, and the shipped
    ones, `facerwkv_fer` say, from the weights that come with the package. `stem_weights` starts a ResNet stem from
    ImageNet: torchvision's name ("IMAGENET1K_V1") or a file with its key names. `parts` names files with the published
    weights of a model's parts, say {"face": "ir50.pth"} for POSTER++.
    """
    line = model_line(name)
    config = line.configured(options)
    model = _pretrained(name, line, config) if pretrained else line.build(config)
    if stem_weights is not None:
        from facerwkv.models.stem import load_stem

        load_stem(model, stem_weights)
    for part, source in (parts or {}).items():
        load_part: Any = getattr(model, "load_part", None)
        if load_part is None:
            raise InputError(f"{name} has no parts with weights of their own; leave parts out.")
        load_part(part, source)
    return model


def _pretrained(name: str, line: Model, config: Any) -> "nn.Module":
    """From ImageNet, or with the weights that come with the package, `adapted` to another configuration."""
    from facerwkv.models.adapt import adapted
    from facerwkv.models.checkpoint import load_checkpoint, load_weights

    if isinstance(config, BackboneConfig):
        return line.build(config, pretrained=True)  # type: ignore[call-arg]
    if name not in shipped():
        raise InputError(f"{without_weights(name)} In Python, build it with pretrained=False.")
    model = line.build(config)
    load_weights(model, adapted(load_checkpoint(name).model, model), f"the shipped {name}")
    return model
