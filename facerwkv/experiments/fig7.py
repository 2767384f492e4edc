"""Figure 7: validation accuracy of the small model with an MLP and with a linear head over 15 epochs.

    facerwkv reproduce fig7 --data caer_s:/d/CAER-S

The paper: the MLP head is ahead most of the time, the linear one in the last epoch. Its curves are probably run13 (MLP)
and run15. The runs are table 5's, about 1 h each on a laptop's RTX 4070 by the authors' logs.
"""

from facerwkv.experiments.study import Figure
from facerwkv.experiments.table5_ablation import LINEAR, SMALL

FIGURE = Figure(
    title="Figure 7: the head",
    claim="The paper: the MLP head is ahead most of the time, the linear one in the last epoch.",
    rows=(SMALL, LINEAR),
)
run = FIGURE.run
