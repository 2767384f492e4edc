"""Table 5: positions, the head, and "without RWKV", on the small model.

    facerwkv reproduce table5_ablation --data caer_s:/d/CAER-S

The paper: 54.90, with positions 54.52, without the MLP head 54.80, without RWKV 14.29 % after 15 epochs. The last is
1/7: the loss of that run stood at ln 7 from the first epoch on; section5_5_identity asks why. Figures 6 and 7 draw the
same runs.
"""

from facerwkv.experiments.logs import RUN13, RUN14, RUN15, RUN18
from facerwkv.experiments.study import Row, Study

EPOCHS = "train.epochs=15"
HOURS = "the authors logged 1.0 to 1.2 h for 15 epochs of a small model on a laptop's RTX 4070."
SMALL = Row("Small", ("model.name=facerwkv_small", EPOCHS), 54.90, "Probably run13.", RUN13)
POSITIONS = Row(
    "w/ Positional Encoding",
    (*SMALL.changes, "model.options.position=learned"),
    54.52,
    "Probably run14; a commit's message gives 54.5255. Without them the positions are still created and counted.",
    RUN14,
)
LINEAR = Row(
    "w/o MLP head",
    (*SMALL.changes, "model.options.head=linear"),
    54.80,
    "Probably run15, the one that ends on top, as section 5.4.2 says.",
    RUN15,
)
WITHOUT = Row(
    "w/o RWKV",
    ("model.name=facerwkv_small_identity", EPOCHS),
    14.29,
    "run18: the loss stood at ln 7; a hidden layer of 76,800 inputs died.",
    RUN18,
)
STUDY = Study(
    title="Table 5: ablation",
    claim="The paper: positions and the MLP head change little; without RWKV nothing is learned. Small, 15 epochs.",
    hours=HOURS,
    rows=(SMALL, POSITIONS, LINEAR, WITHOUT),
)
run = STUDY.run
