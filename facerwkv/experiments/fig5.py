"""Figure 5: validation accuracy of the large model and of the two hybrids over 15 epochs.

    facerwkv reproduce fig5 --data caer_s:/d/CAER-S

The paper: unfrozen gains 2.2 points at its best epoch. Unfrozen is run16; run10 is the frozen one or Large, which of
the two the logs do not say. The runs are table 3's, 2.3 to 2.9 h each on a laptop's RTX 4070 by the authors' logs.
"""

from facerwkv.experiments.study import Figure
from facerwkv.experiments.table3_hybrid import STUDY

FIGURE = Figure(
    title="Figure 5: the hybrids",
    claim="The paper: the frozen stem gains nothing, the unfrozen one 2.2 points at its best epoch.",
    rows=STUDY.rows,
)
run = FIGURE.run
