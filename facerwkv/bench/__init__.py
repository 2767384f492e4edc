"""Speed and memory, side by side with peers; a row whose answers disagree gives no number. The rows: `bench.rows`."""

GROUPS = {
    "kernels": "The recurrences against attention and against their plain forms.",
    "models": "Whole models against transformers of the same width, depth and hidden size.",
    "memory": "Peak memory, each measured in a process of its own.",
    "predict": "From pixels to labels, against OpenCV's YuNet, the package fer and networks of timm.",
    "data": "Reading images, against Pillow.",
}
EVERYTHING = "all"
