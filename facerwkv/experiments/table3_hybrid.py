"""Table 3: does a stem of ResNet-50 help the large model, frozen or not?

    facerwkv reproduce table3_hybrid --data caer_s:/d/CAER-S

The paper: 70.82 % without, 70.30 frozen, 73.02 unfrozen, 15 epochs. What it calls the first four blocks is the stem
alone, 9,536 parameters. Their "frozen" stem's batch norms still moved, as they do here with --as-coded. Figure 5 draws
the same runs.
"""

from facerwkv.experiments.logs import RUN16
from facerwkv.experiments.study import Row, Study

STUDY = Study(
    title="Table 3: the hybrid",
    claim="The paper: a ResNet-50 stem gains 2.2 points where it is trained too, and nothing where it is frozen; "
    "15 epochs.",
    hours="the authors logged 2.3 to 2.9 h per run on a laptop's RTX 4070.",
    rows=(
        Row("Baseline", ("model.name=facerwkv_large", "train.epochs=15"), 70.82, "Table 2's number, of 25 epochs."),
        Row(
            "Hybrid Frozen",
            ("model.name=facerwkv_hybrid_frozen", "train.epochs=15"),
            70.30,
            "Weights stood still, batch-norm statistics did not: model.options.stem=resnet_frozen_as_coded.",
            as_coded=("model.options.stem=resnet_frozen_as_coded",),
        ),
        Row(
            "Hybrid Unfrozen",
            ("model.name=facerwkv_hybrid", "train.epochs=15"),
            73.02,
            "run16: 70.39 % at the end, 73.26 at its best on validation.",
            RUN16,
        ),
    ),
)
run = STUDY.run
