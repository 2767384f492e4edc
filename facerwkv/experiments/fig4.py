"""Figure 4: validation accuracy of the three sizes over 25 epochs.

    facerwkv reproduce fig4 --data caer_s:/d/CAER-S

The paper: larger is better, with diminishing returns. Its curve of Large is that of the test images (run06). The runs
are table 2's, 2.5 to 4.9 h each on a laptop's RTX 4070 by the authors' logs.
"""

from facerwkv.experiments.study import Figure
from facerwkv.experiments.table2_scaling import STUDY

FIGURE = Figure(
    title="Figure 4: three sizes",
    claim="The paper: larger is better, with diminishing returns. Its Large was validated on the test images.",
    rows=STUDY.rows,
)
run = FIGURE.run
