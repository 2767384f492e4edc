"""The systems that the paper compares with, one file each. Timm is loaded first: registering them needs their files."""

import timm.models  # noqa: F401
