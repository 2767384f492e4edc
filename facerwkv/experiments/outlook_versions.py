"""Section 6's first outlook: newer versions of RWKV, in the same frame, seeing the past alone or all tokens.

    facerwkv reproduce outlook_versions --data caer_s:/d/CAER-S

The paper has no numbers: it recommends newer versions for their speed. RWKV-1 is at full width here, as the others
do. Hours are not known; the authors logged 1.0 to 1.2 h for 15 epochs of their small RWKV-1 on a laptop's RTX 4070.
"""

from facerwkv.experiments.claim_width import FULL_WIDTH
from facerwkv.experiments.study import Row, Study
from facerwkv.experiments.table5_ablation import EPOCHS

SCANS = {"forward": (), "both": ("model.options.scan=both",)}
NEWER = tuple(
    Row(f"RWKV-{version}, {scan}", (f"model.name=facerwkv{version}_small", EPOCHS, *changes))
    for scan, changes in SCANS.items()
    for version in (4, 5, 6, 7)
)
STUDY = Study(
    title="Outlook: newer versions",
    claim="The paper recommends newer versions and has no numbers. Small, 15 epochs; a token sees those before it "
    "(forward) or all (both).",
    hours="not known; the authors' small RWKV-1 took 1.0 to 1.2 h on a laptop's RTX 4070.",
    rows=(Row("RWKV-1, full width, forward", FULL_WIDTH.changes), *NEWER),
)
run = STUDY.run
