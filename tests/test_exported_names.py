import facerwkv


def test_every_public_name_is_there():
    for name in facerwkv.__all__:
        assert getattr(facerwkv, name) is not None


def test_the_version_is_the_installed_one():
    from importlib.metadata import version

    assert facerwkv.__version__ == version("facerwkv")


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(facerwkv, "FacerRWKV")
