"""The place of an error."""

from mlx_aimv2.errors import Advice, InputError


def test_an_error_is_at_a_place_within_another():
    error = InputError("it is wrong", Advice("use {}", "dtype", "bfloat16")).at("key").at("file.json")
    assert (error.place, error.message) == ("file.json: key", "it is wrong")
    assert str(error) == "file.json: key: it is wrong: use dtype='bfloat16'"
