"""YuNet's published ONNX file → facerwkv/media/yunet.onnx: `python tools/write_detector.py FILE`."""

import sys
from pathlib import Path

from facerwkv.media.faces import PACKAGED
from facerwkv.media.yunet import rewritten

if __name__ == "__main__":
    PACKAGED.write_bytes(rewritten(Path(sys.argv[1]).read_bytes()))
