"""Table 2 and figure 4: does a larger model recognise more?

    facerwkv reproduce table2_scaling --data caer_s:/d/CAER-S

The paper: 61.41, 70.41 and 70.82 % after 25 epochs. Their logs: Large's curve is that of the test images (run06),
Medium's perhaps run17, and no log of 25 epochs ends near Small's number.
"""

from facerwkv.experiments.study import Row, Study

LARGE_LOG = (
    0.195,
    0.2397,
    0.295,
    0.373,
    0.4322,
    0.5011,
    0.5465,
    0.5883,
    0.6246,
    0.6497,
    0.6554,
    0.6753,
    0.6645,
    0.6836,
    0.6844,
    0.6925,
    0.7022,
    0.6947,
    0.6966,
    0.7012,
    0.6978,
    0.7024,
    0.7007,
    0.7091,
    0.716,
)
MEDIUM_LOG = (
    0.1922,
    0.225,
    0.268,
    0.3308,
    0.4141,
    0.4742,
    0.5227,
    0.5462,
    0.589,
    0.615,
    0.6322,
    0.6491,
    0.6546,
    0.6637,
    0.6825,
    0.6935,
    0.6756,
    0.687,
    0.6858,
    0.6725,
    0.6957,
    0.6949,
    0.6933,
    0.6937,
    0.7122,
)
STUDY = Study(
    title="Table 2: scaling up",
    claim="accuracy grows with size up to a point; 25 epochs each.",
    hours="the authors logged 2.5 h (Small) to 4.9 h (Large) on a laptop's RTX 4070.",
    rows=(
        Row("Small", ("model.name=facerwkv_small",), 61.41, "No logged run of 25 epochs ends near this number."),
        Row("Medium", ("model.name=facerwkv_medium",), 70.41, "Probably run17; 688 steps an epoch.", MEDIUM_LOG),
        Row(
            "Large",
            ("model.name=facerwkv_large",),
            70.82,
            "run06: validated on the test images, and a tenth more images in training than Medium had (765 steps).",
            LARGE_LOG,
        ),
    ),
    figure="Figure 4",
)
run = STUDY.run
