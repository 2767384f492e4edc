"""YuNet's published ONNX file → the graph that the face detector runs: the same network, in fewer and wider steps."""

from typing import Any

import numpy as np

from facerwkv.core.errors import InputError

STRIDES = (8, 16, 32)
"""Pixels per cell of the three grids that faces are found on, the finest first; sides are multiples of the last."""
IMAGES, FACES = "images", "faces"
OUTPUTS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
"""Part of the published head → its channels, in the order of the rewritten graph's."""


def rewritten(published: bytes) -> bytes:
    """The graph "images", uint8 (B, H, W, 3) RGB, H and W multiples of 32 → "faces", float32 (B, 16, cells).

    The cells are those of each stride, row by row; a cell's 16 numbers are the logits of OUTPUTS' cls and obj, then
    bbox and kps. The published graph takes one float32 image (1, 3, 640, 640) in BGR, and has for each stride four
    heads of one to ten channels; here a stride has one head of 16, as wide as a vector of the processor. Needs the
    package onnx. Raises what onnx raises, KeyError or IndexError if the file is no YuNet.
    """
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise InputError("A face detector of your own needs the package onnx: pip install onnx") from error

    graph = onnx.load_from_string(published).graph
    weights = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    nodes = [
        helper.make_node("Unsqueeze", [IMAGES], ["plane"], axes=[1]),
        helper.make_node("Reshape", ["plane", "lines"], ["numbers"]),
        helper.make_node("Cast", ["numbers"], [graph.input[0].name], to=TensorProto.FLOAT),
    ]
    # The first convolution, of 3 x 3 pixels in BGR, reads lines of 3 x 9 numbers in RGB: nothing is transposed.
    first = graph.node[0].input[1]
    weights[first] = weights[first][:, ::-1].transpose(0, 2, 3, 1).reshape(-1, 1, 3, 9)
    weights["lines"] = np.array([0, 0, 0, -1])
    del graph.node[0].attribute[:]
    sizes = {"kernel_shape": [3, 9], "strides": [2, 6], "pads": [1, 3, 1, 3]}
    graph.node[0].attribute.extend(helper.make_attribute(name, size) for name, size in sizes.items())
    features: list[str] = [""] * len(STRIDES)
    for node in graph.node:
        level = _level(node)
        if level is not None and node.input[1].endswith("conv1.weight"):
            features[level] = node.input[0]
        elif level is None and node.op_type in ("Conv", "Relu", "MaxPool", "Resize", "Add"):
            nodes.append(node)
    for level, feature in enumerate(features):
        for name in ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"):
            parts = [weights[f"bbox_head.multi_level_{part}.{level}.{name}"] for part in OUTPUTS]
            weights[f"head.{level}.{name}"] = np.concatenate(parts)
        wide, deep, flat = (f"head.{level}.{step}" for step in ("wide", "deep", "flat"))
        wide_inputs, deep_inputs = ([f"head.{level}.conv{i}.{kind}" for kind in ("weight", "bias")] for i in (1, 2))
        nodes += [
            helper.make_node("Conv", [feature, *wide_inputs], [wide], kernel_shape=[1, 1]),
            helper.make_node("Conv", [wide, *deep_inputs], [deep], kernel_shape=[3, 3], pads=[1] * 4, group=16),
            helper.make_node("Reshape", [deep, "rows"], [flat]),
        ]
    nodes.append(helper.make_node("Concat", [f"head.{level}.flat" for level in range(len(STRIDES))], [FACES], axis=2))
    weights["rows"] = np.array([0, sum(OUTPUTS.values()), -1])
    used = {name for node in nodes for name in node.input}
    made = helper.make_graph(
        nodes,
        "YuNet",
        [helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, ["batch", "height", "width", 3])],
        [helper.make_tensor_value_info(FACES, TensorProto.FLOAT, ["batch", 16, "cells"])],
        [numpy_helper.from_array(weights[name], name) for name in sorted(used & weights.keys())],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 11)], ir_version=7)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _level(node: Any) -> int | None:
    """Which grid's head a node of the published graph belongs to, by the name of its weights."""
    name = node.input[1] if len(node.input) > 1 else ""
    return int(name.split(".")[2]) if name.startswith("bbox_head.") else None
