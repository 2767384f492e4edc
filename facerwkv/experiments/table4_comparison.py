"""Table 4: the systems that the paper compares with, each as its authors trained it; on faces, one recipe for all.

    facerwkv reproduce table4_comparison --data caer_s:/d/CAER-S data.boxes=/d/CAERS-Annotation
    facerwkv reproduce table4_comparison --data fer2013:/d/fer2013 --seeds 0

The paper: 61.41 to 73.02 % for FaceRWKV and 93.00 for POSTER++, on CAER-S. It trained its own models and quotes the
others. On CAER-S, and other images of scenes, every system is trained here with its own recipe, at its own resolution;
CAER-Net-S looks at faces: their boxes come from data.boxes, or from the detector. POSTER++'s face networks start from
random weights unless poster_v2:model.parts names theirs; the CNNs and the ViT start from ImageNet, over the network.

On images that are faces already (FER2013) all are trained from scratch under the recipe `modern`, the lighter systems
of a kind, on grey images of 48 pixels, for AlexNet and ViT 64, without the training images that also occur in
validation or test. All that have a stem of ours have the convolutional one and read all tokens, so that what differs is
what mixes them. About 5 hours for one seed on one thread of an AMD EPYC, by the 1.7 hours that 4 epochs took.
"""

from facerwkv.data.datasets import DATASETS
from facerwkv.evaluation.compare import compare, entries_of
from facerwkv.evaluation.comparison import cells, columns
from facerwkv.evaluation.templates import Paragraph, Section, Table
from facerwkv.experiments.study import SMOKE_DATA, Incomplete, Run, Setting

NAME = "table4_comparison"
SCENES = (
    *("facerwkv_small", "facerwkv_medium", "facerwkv_large", "facerwkv_hybrid", "poster_v2", "caer_net_s"),
    *("resnet152", "vgg19", "alexnet", "patt_lite", "vit_base"),
)
OF_SCENES = ("caer_net_s:data.boxes=detect",)
EPOCHS = 12
HEAD = "pool: flatten, head: linear"
FACES = (
    *("facerwkv_small", "facerwkv_small_fullwidth", "facerwkv_hybrid_small", "facerwkv_small_identity"),
    *("facerwkv4_small", "facerwkv5_small", "facerwkv6_small", "facerwkv7_small", "vrwkv_tiny"),
    *("transformer_small", "vit_tiny", "alexnet", "resnet18"),
)
OF_FACES = (
    "transform={image_size: [48, 48], in_chans: 1, mean: [0.5], std: [0.25]}",
    "alexnet:transform.image_size=[64, 64]",
    "vit_tiny:transform.image_size=[64, 64]",
    f"*_small*:model.options={{stem: conv, patch_size: 8, {HEAD}}}",
    f"*hybrid_small:model.options={{patch_size: 2, {HEAD}}}",
    "vrwkv_tiny:model.options={stem: conv, patch_size: 8}",
    "model.stem_weights=null",
    "data.drop_leaks=true",
    "schedule.warmup_epochs=0.5",
    f"train.epochs={EPOCHS}",
)
OWN_STEMS = (
    "The hybrid, ViT, AlexNet and ResNet have stems of their own; the others share the convolutional one. CAER-Net-S "
    "has no row: it needs a scene around the face. POSTER++, VGG-19, ResNet-152, larger models and PAtt-Lite, which "
    "enlarges every image to 224 pixels, are left out for their cost on a CPU."
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


def _asked(setting: Setting) -> tuple[list[str], str, list[str], str]:
    """The names, the recipe, the changes, and the data."""
    spec = DATASETS.get(setting.data.partition(":")[0])
    scenes = not setting.smoke and spec is not None and spec.name != "toy" and not spec.crops
    names, recipe, changes = (SCENES, "own", OF_SCENES) if scenes else (FACES, "modern", OF_FACES)
    small = ["train.epochs=1", "data.batch_size=14"] if setting.smoke else []
    data = SMOKE_DATA if setting.smoke else setting.data
    given = any(change.startswith(("data.boxes=", "caer_net_s:")) for change in setting.changes)
    kept = [change for change in changes if not (given and change in OF_SCENES)]
    return [name for name in names if setting.wants(name)], recipe, [*kept, *small, *setting.changes], data


def runs(setting: Setting) -> list[Run]:
    """One for each system and seed."""
    names, recipe, changes, data = _asked(setting)
    return [
        Run(entry.name, "own", seed, entry.recipe, setting.out / NAME / f"seed{seed}" / entry.folder, "test/row.json")
        for seed in setting.seeds
        for entry in entries_of(names, recipe, [*changes, f"train.seed={seed}"], {"data.source": data})
        if entry.recipe
    ]


def run(setting: Setting) -> list[Section]:
    """One table per seed, in OUT/table4_comparison/seedN, and the paper's; runs that are complete are not repeated."""
    sections: list[Section] = []
    problems: list[str] = []
    names, recipe, changes, data = _asked(setting)
    for seed in setting.seeds:
        out, values = setting.out / NAME / f"seed{seed}", {"data.source": data}
        found = compare(
            names, recipe, [*changes, f"train.seed={seed}"], out, values=values, callbacks=setting.callbacks
        )
        rows = Table(columns(found.rows), [cells(row, found.rows) for row in found.rows])
        how = "each with its own recipe" if recipe == "own" else "one recipe, one budget"
        notes = [Paragraph(text) for text in (*found.problems, *(() if recipe == "own" else (OWN_STEMS,)))]
        sections.append((f"Table 4: the systems, {how}, seed {seed}", [rows, *notes]))
        problems += found.problems
    printed = Table(("architecture", "accuracy, %", "parameters"), PAPER)
    sections.append(("Table 4 as the paper prints it", [printed, Paragraph(NOTE)]))
    if problems:
        raise Incomplete(problems, sections)
    return sections
