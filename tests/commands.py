"""`facerwkv` in this process: what the program prints and its exit code, without the seconds that a start takes."""

import io
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from subprocess import CompletedProcess
from unittest.mock import patch

from facerwkv import cli


def facerwkv(*arguments: object, cwd: object = ".", given: str = "") -> CompletedProcess[str]:
    """The command run in the folder `cwd` with `given` as its standard input."""
    words, out, err = ["facerwkv", *map(str, arguments)], io.StringIO(), io.StringIO()
    streams = redirect_stdout(out), redirect_stderr(err), patch.object(sys, "stdin", io.StringIO(given))
    with chdir(str(cwd)), patch.object(sys, "argv", words), streams[0], streams[1], streams[2]:
        try:
            cli.main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return CompletedProcess(words, code, out.getvalue(), err.getvalue())
