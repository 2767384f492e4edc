"""Section 4.2: what the head reads: the last token, the mean of all, or all of them.

    facerwkv reproduce section4_2_pooling --data caer_s:/d/CAER-S

The paper: early experiments, not reported, showed the mean to be inferior. Its models read the last token, the lower
right corner of the image. All tokens at once ("flatten") is what its "w/o RWKV" read. About 1 h per run, as table 5's,
on a laptop's RTX 4070.
"""

from facerwkv.experiments.study import Row, Study
from facerwkv.experiments.table5_ablation import HOURS, SMALL

STUDY = Study(
    title="Section 4.2: pooling",
    claim="The paper: the mean over the tokens was inferior to the last one; no number. Small, 15 epochs.",
    hours=HOURS,
    rows=(
        Row("last token, as published", SMALL.changes),
        Row("mean of all tokens", (*SMALL.changes, "model.options.pool=mean")),
        Row("all tokens, linear head", (*SMALL.changes, "model.options={pool: flatten, head: linear}")),
    ),
)
run = STUDY.run
