"""The tiny models of the models' tests."""

from tests.unit.models.conftest import bert, gpt2, llama, vit  # noqa: F401
