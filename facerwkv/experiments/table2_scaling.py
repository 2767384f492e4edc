"""Table 2: does a larger model recognise more?

    facerwkv reproduce table2_scaling --data caer_s:/d/CAER-S

The paper: 61.41, 70.41 and 70.82 % after 25 epochs. Their logs: Large's curve is that of the test images (run06),
Medium's perhaps run17, and no log of 25 epochs ends near Small's number. Figure 4 draws the same runs.
"""

from facerwkv.experiments.logs import RUN06, RUN17
from facerwkv.experiments.study import Row, Study

STUDY = Study(
    title="Table 2: scaling up",
    claim="The paper: accuracy grows with size up to a point; 25 epochs each.",
    hours="the authors logged 2.5 h (Small) to 4.9 h (Large) on a laptop's RTX 4070.",
    rows=(
        Row("Small", ("model.name=facerwkv_small",), 61.41, "No logged run of 25 epochs ends near this number."),
        Row("Medium", ("model.name=facerwkv_medium",), 70.41, "Probably run17; 688 steps per epoch.", RUN17),
        Row(
            "Large",
            ("model.name=facerwkv_large",),
            70.82,
            "run06: validated on the test images, a tenth more images in training than Medium had (765 steps), and a "
            "learning rate that swung with a period of 10 steps (max_epochs was 5 in train.py).",
            RUN06,
            as_coded=("data.validation=test", "schedule.half_period=5"),
        ),
    ),
)
run = STUDY.run
