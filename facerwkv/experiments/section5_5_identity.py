"""Section 5.5: is RWKV necessary? "w/o RWKV" as published, with heads and learning rates that train, and with RWKV.

    facerwkv reproduce section5_5_identity --data caer_s:/d/CAER-S

The paper: 14.29 % without RWKV, which it takes for proof that RWKV is needed. 14.29 % is 1/7: the loss of that run
(run18) stood at ln 7 from the first epoch on, behind a hidden layer of 76,800 inputs at a learning rate of 0.001. Each
row without RWKV has one with it in the same frame: ResNet stem, all tokens into the head. The authors logged 1.2 h per
run on a laptop's RTX 4070.
"""

from facerwkv.experiments.study import Row, Study
from facerwkv.experiments.table5_ablation import EPOCHS, HOURS, WITHOUT

WITH = ("model.name=facerwkv_hybrid_small", EPOCHS, "model.options.pool=flatten")
LINEAR, SLOW = "model.options.head=linear", "optim.lr=0.0001"
STUDY = Study(
    title="Section 5.5: without RWKV",
    claim="The paper: without RWKV the model cannot learn. If a head or a learning rate can make it learn, the 14.29 % "
    "were a failure of the optimisation. 15 epochs.",
    hours=HOURS,
    rows=(
        WITHOUT,
        Row("with RWKV in its place", WITH),
        Row("w/o RWKV, linear head", (*WITHOUT.changes, LINEAR)),
        Row("with RWKV, linear head", (*WITH, LINEAR)),
        Row("w/o RWKV, learning rate 0.0001", (*WITHOUT.changes, SLOW)),
        Row("with RWKV, learning rate 0.0001", (*WITH, SLOW)),
    ),
)
run = STUDY.run
