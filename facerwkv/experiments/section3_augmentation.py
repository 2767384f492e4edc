"""Section 3: no augmentation, because that of POSTER++ and PAtt-Lite made the training converge more slowly?

    facerwkv reproduce section3_augmentation --data caer_s:/d/CAER-S

The paper gives no numbers and no logs of it; its experiments used none. POSTER++ flips and erases a rectangle of each
image, PAtt-Lite flips and changes the contrast. About 1 h per run, as table 5's, on a laptop's RTX 4070.
"""

from functools import partial

from facerwkv.experiments.study import Figure, Row, Study, run_all
from facerwkv.experiments.table5_ablation import HOURS, SMALL

ROWS = (
    Row("none, as published", SMALL.changes),
    Row("flip", (*SMALL.changes, "augment.flip=0.5")),
    Row("flip and erase, as POSTER++", (*SMALL.changes, "augment={flip: 0.5, erase: 1.0, erase_area: [0.05, 0.05]}")),
    Row(
        "flip and contrast, as PAtt-Lite",
        (*SMALL.changes, "augment={flip: 0.5, contrast: 0.3, contrast_mean: channel}"),
    ),
)
STUDY = Study(
    title="Section 3: augmentation",
    claim="The paper: the augmentations of POSTER++ and PAtt-Lite slow convergence, so none is used; no numbers. "
    "Small, 15 epochs.",
    hours=HOURS,
    rows=ROWS,
)
FIGURE = Figure(
    title="Section 3, convergence: validation accuracy after each epoch",
    claim="Slower convergence would show in the first epochs.",
    rows=ROWS,
)
run = partial(run_all, (STUDY, FIGURE))
