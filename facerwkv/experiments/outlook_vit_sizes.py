"""Section 6's second outlook: larger models, of ViT's sizes.

    facerwkv reproduce outlook_vit_sizes --data caer_s:/d/CAER-S

The paper has no numbers: it lacked the means. Twelve layers of 192, 384 and 768 channels, 25 epochs. Hours are not
known; the authors logged 4.9 h for Large, 6 layers of 512 channels, on a laptop's RTX 4070. --smoke keeps two layers.
"""

from facerwkv.experiments.study import Row, Study

STUDY = Study(
    title="Outlook: ViT's sizes",
    claim="The paper suggests models of ViT's sizes and has no numbers. 25 epochs.",
    hours="not known; the authors' Large, 6 layers of 512 channels, took 4.9 h on a laptop's RTX 4070.",
    rows=tuple(
        Row(
            f"RWKV-{version}, ViT-{size.capitalize()}",
            (f"model.name=facerwkv{version}_vit_{size}",),
            smoke=("model.options.depth=2",),
        )
        for version in (4, 7)
        for size in ("tiny", "small", "base")
    ),
)
run = STUDY.run
