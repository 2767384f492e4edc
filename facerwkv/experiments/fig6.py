"""Figure 6: validation accuracy of the small model with and without learned positions over 15 epochs.

    facerwkv reproduce fig6 --data caer_s:/d/CAER-S

The paper: the two go side by side. Its curves are probably run13 (without) and run14. The runs are table 5's, about 1 h
each on a laptop's RTX 4070 by the authors' logs.
"""

from facerwkv.experiments.study import Figure
from facerwkv.experiments.table5_ablation import POSITIONS, SMALL

FIGURE = Figure(
    title="Figure 6: positions",
    claim="The paper: positions change little.",
    rows=(SMALL, POSITIONS),
)
run = FIGURE.run
