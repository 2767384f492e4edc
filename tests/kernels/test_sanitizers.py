import runpy
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "sanitize_kernels.py"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["address", "thread"])
def test_the_c_kernels_are_clean(kind, record_property):
    """The tests of the kernels and ten minutes of their fuzz; ThreadSanitizer on the loops that run in threads."""
    if why := runpy.run_path(str(TOOL))["available"](kind):
        pytest.skip(why)
    done = subprocess.run([sys.executable, str(TOOL), kind], capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    record_property("cases", [line for line in done.stdout.splitlines() if " cases, " in line])
