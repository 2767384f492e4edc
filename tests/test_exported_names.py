"""The public names, listed once for people and once for type checkers."""

import ast
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

import facerwkv

PACKAGES = ("facerwkv", "facerwkv.models")


def names_for_type_checkers(package):
    """Name → module below the package, of the `if TYPE_CHECKING:` block."""
    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    return {
        alias.asname: node.module.removeprefix(f"{package.__name__}.") for node in block.body for alias in node.names
    }


@pytest.mark.parametrize("name", PACKAGES)
def test_type_checkers_see_the_public_names_and_no_others(name):
    package = import_module(name)
    assert names_for_type_checkers(package) == package._HOMES
    assert {*package.__all__} - {"__version__"} == package._HOMES.keys()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there(package):
    package = import_module(package)
    assert all(getattr(package, name) is not None for name in package.__all__)
    assert {*package.__all__} <= {*dir(package), "__version__"}


def test_the_version_is_the_installed_one():
    assert facerwkv.__version__ == version("facerwkv")


@pytest.mark.parametrize("package", PACKAGES)
def test_an_unknown_name_is_an_attribute_error(package):
    assert not hasattr(import_module(package), "FacerRWKV")
