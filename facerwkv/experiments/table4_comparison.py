"""Table 4: the systems that the paper compares with, and every small FaceRWKV, from scratch, one recipe, one budget.

    facerwkv reproduce table4_comparison --data fer2013:/d/fer2013 --seeds 0

The paper: 61.41 to 73.02 % for FaceRWKV and 93.00 for POSTER++, on CAER-S. It trained its own models and quotes the
others. Here all are trained, the lighter systems of a kind, on smaller images: 1.7 hours of training for the fourteen
on FER2013, one thread of an AMD EPYC (docs/results.md).

The recipe is `modern`; the data are grey faces, without the training images that also occur in validation or test; the
best epoch is chosen on validation and scored once on test. Images have 48 pixels, for AlexNet and ViT 64. Every
FaceRWKV and the paper's transformer follow the same convolutional stem and read all tokens, so that what differs
is what mixes them: linear patches and the last token hardly begin to learn in so few epochs. All start from random
weights; what ImageNet's give is one more change, "resnet*:model.pretrained=true". Left out for their cost
on a CPU: POSTER++, VGG-19, ResNet-152, larger models, and PAtt-Lite, which enlarges every image to 224 pixels.
"""

from facerwkv.evaluation.compare import compare
from facerwkv.evaluation.comparison import cells, columns
from facerwkv.evaluation.templates import Paragraph, Section, Table
from facerwkv.experiments.study import SMOKE_DATA, Incomplete, Setting

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


PAPER = (
    ("FaceRWKV Small", "61.41", "0.5M"),
    ("FaceRWKV Medium", "70.41", "2.8M"),
    ("FaceRWKV Large", "70.82", "14.8M"),
    ("FaceRWKV Hybrid Unfrozen", "73.02", "15.0M"),
    ("Poster++", "93.00", "43.7M"),
    ("CAER-Net-S", "73.51", "N/A"),
    ("Fine-tuned ResNet", "68.46", "58.2M"),
    ("Fine-tuned VGGNet", "64.85", "143.7M"),
    ("Fine-tuned AlexNet", "61.73", "61.1M"),
)
NOTE = (
    "These are accuracies on CAER-S. The paper ran its own models, on whole images of 400 x 600 pixels; the others "
    "are quoted from POSTER++ and CAER, which started from trained weights and had other images and crops. They "
    "compare with no row on other data or other images, such as those above, and not all with one another."
)


def run(setting: Setting) -> list[Section]:
    """One table per seed, in OUT/table4_comparison/seedN, and the paper's; runs that are complete are not repeated."""
    sections: list[Section] = []
    problems: list[str] = []
    for seed in setting.seeds:
        data = SMOKE_DATA if setting.smoke else setting.data
        small = ["train.epochs=1", "data.batch_size=14"] if setting.smoke else []
        changes = [*CHANGES, f"train.seed={seed}", *small, *setting.changes]
        out = setting.out / "table4_comparison" / f"seed{seed}"
        found = compare(NAMES, "modern", changes, out, values={"data.source": data})
        rows = Table(columns(found.rows), [cells(row, found.rows) for row in found.rows])
        sections.append((f"Table 4: the systems, one budget, seed {seed}", [rows, *map(Paragraph, found.problems)]))
        problems += found.problems
    printed = Table(("architecture", "accuracy, %", "parameters"), PAPER)
    sections.append(("Table 4 as the paper prints it", [printed, Paragraph(NOTE)]))
    if problems:
        raise Incomplete(problems, sections)
    return sections
