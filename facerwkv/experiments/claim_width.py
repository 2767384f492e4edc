"""The information bottleneck: the time mix as narrow as published, and at full width.

    facerwkv reproduce claim_width --data caer_s:/d/CAER-S

The published code sets the time mix's width to the number of heads: Small mixes 2 of 128 channels, and what the last
token can know of the others passes through 2 numbers a layer (the Jacobian has rank 4, at full width 128). RWKV-1's
author has the full width. The paper's "diminishing returns" may be this. About 1 h per run, as table 5's, on a laptop's
RTX 4070.
"""

from facerwkv.experiments.study import Row, Study
from facerwkv.experiments.table5_ablation import EPOCHS, HOURS, SMALL

FULL_WIDTH = Row("full width, as RWKV-1's author", ("model.name=facerwkv_small_fullwidth", EPOCHS))
STUDY = Study(
    title="The time mix's width",
    claim="The published code mixes 2 of Small's 128 channels, which the paper does not say. 15 epochs.",
    hours=HOURS,
    rows=(Row("2 of 128 channels, as published", SMALL.changes, ran="n_attn = n_head in every config."), FULL_WIDTH),
)
run = STUDY.run
