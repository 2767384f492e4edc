"""Writes graph.onnx beside the weights that the package ships: with it they run without PyTorch."""

from facerwkv.models.graph import write_graph
from facerwkv.models.zoo import SHIPPED, shipped

for name in shipped():
    print(f"{name}: logits equal to PyTorch's within {write_graph(SHIPPED / name):.0e}")
