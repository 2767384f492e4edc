"""The systems that the paper compares with, and every small FaceRWKV: from scratch, one recipe, one budget, one table.

    facerwkv reproduce comparison --data fer2013:/d/fer2013 --seeds 0

The recipe is `modern`; the data are grey faces, without the training images that stand in validation or test too; the
best epoch is chosen on validation and scored once on test. Pictures have 48 pixels, for AlexNet and ViT 64. Every
FaceRWKV and the paper's transformer stand behind the same convolutional stem and read all tokens, so that what differs
is what mixes them: linear patches and the last token hardly begin to learn in so few epochs. All start from random
weights; what ImageNet's give is one more change, "resnet*:model.pretrained=true". Left out for their cost
on a CPU: POSTER++, VGG-19, ResNet-152, larger models, and PAtt-Lite, which enlarges every picture to 224 pixels.
"""

from facerwkv.experiments.study import SMOKE_DATA, Setting
from facerwkv.training.compare import compare
from facerwkv.training.comparison import COLUMNS, cells
from facerwkv.training.pages import Paragraph, Section, Table

EPOCHS = 4
HEAD = "pool: flatten, head: linear"
NAMES = (
    *("facerwkv_small", "facerwkv_small_fullwidth", "facerwkv_hybrid_small", "facerwkv_small_identity"),
    *("facerwkv4_small", "facerwkv5_small", "facerwkv6_small", "facerwkv7_small", "vrwkv_tiny"),
    *("transformer_small", "vit_tiny", "caer_net_s", "alexnet", "resnet18"),
)
CHANGES = (
    "transform={image_size: [48, 48], in_chans: 1, mean: [0.5], std: [0.25]}",
    "alexnet:transform.image_size=[64, 64]",
    "vit_tiny:transform.image_size=[64, 64]",
    f"*_small*:model.options={{stem: conv, patch_size: 8, {HEAD}}}",
    f"*hybrid_small:model.options={{patch_size: 2, {HEAD}}}",
    "vrwkv_tiny:model.options={patch_size: 8}",
    "model.stem_weights=null",
    "data.drop_leaks=true",
    "schedule.warmup_epochs=0.5",
    f"train.epochs={EPOCHS}",
)


def run(setting: Setting) -> list[Section]:
    """One table a seed, in OUT/comparison/seedN; what is done is not done again."""
    sections: list[Section] = []
    for seed in setting.seeds:
        data = SMOKE_DATA if setting.smoke else setting.data
        small = ["train.epochs=1", "data.batch_size=14"] if setting.smoke else []
        changes = [f"data.source={data}", *CHANGES, f"train.seed={seed}", *small, *setting.changes]
        found = compare(NAMES, "modern", changes, setting.out / "comparison" / f"seed{seed}")
        found.print()
        rows = Table(COLUMNS, [cells(row) for row in found.rows])
        sections.append((f"Table 4: the systems, one budget, seed {seed}", [rows, *map(Paragraph, found.problems)]))
    return sections
