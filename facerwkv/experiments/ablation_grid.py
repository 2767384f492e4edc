"""Row shift and 2-D positions, which RWKV's author advises for images (RWKV-LM, README).

    facerwkv reproduce ablation_grid --data caer_s:/d/CAER-S

The paper quotes the advice to use positions in vision and says that its models do without: it tried one learned table
of 600 vectors. The advice is a vector per row plus a vector per column, and a shift of one row: half of the channels
come from the token above in place of the one before. About 1 h per run, as table 5's, on a laptop's RTX 4070.
"""

from facerwkv.experiments.claim_width import FULL_WIDTH
from facerwkv.experiments.study import Row, Study
from facerwkv.experiments.table5_ablation import HOURS

POSITION, SHIFT = "model.options.position=2d", "model.options.shift=row"
STUDY = Study(
    title="Row shift and 2-D positions",
    claim="The paper: RWKV needs no positions, against its author's advice; a row shift was not tried. Small, with "
    "RWKV-1 at full width, 15 epochs.",
    hours=HOURS,
    rows=(
        Row("neither", FULL_WIDTH.changes),
        Row("2-D positions", (*FULL_WIDTH.changes, POSITION)),
        Row("row shift", (*FULL_WIDTH.changes, SHIFT)),
        Row("both", (*FULL_WIDTH.changes, POSITION, SHIFT)),
    ),
)
run = STUDY.run
