"""The learning rate as the paper's text has it, and as the authors' code ran it.

    facerwkv reproduce claim_schedule --data caer_s:/d/CAER-S

The paper: one epoch of warm-up, then a cosine over the training, gradients clipped at 1. The code stepped a schedule
made for epochs once per step, so that the rate swung between 0.001 and 0 every 30 steps of a run of 15 epochs, and
clipped before there were gradients. About 1 h per run, as table 5's, on a laptop's RTX 4070.
"""

from facerwkv.experiments.study import Row, Study
from facerwkv.experiments.table5_ablation import HOURS, SMALL

CODED = ("schedule.name=as_coded", "optim.clip_norm=null")
STUDY = Study(
    title="The schedule",
    claim="The paper's text and its authors' code differ in the learning rate and the clipping. Small, 15 epochs.",
    hours=HOURS,
    rows=(
        Row("as written", SMALL.changes, as_coded=("schedule.name=cosine", "optim.clip_norm=1.0")),
        Row(
            "as coded", (*SMALL.changes, *CODED), ran="lr_scheduler.step() after every batch; clipping before backward."
        ),
    ),
)
run = STUDY.run
