"""Small models and tasks that train in seconds to minutes: material for demos, tests and studies."""

from __future__ import annotations

from inscape.zoo.corpus import ByteTokenizer, Corpus, standard_library
from inscape.zoo.digits import Digits, DigitsCNN, DigitsMLP, DigitsViT, TrainedDigits, digits, train_digits
from inscape.zoo.gpt import GPT
from inscape.zoo.recurrent import RecurrentLM
from inscape.zoo.training import Checkpoint, log_steps, train

__all__ = [
    "GPT",
    "ByteTokenizer",
    "Checkpoint",
    "Corpus",
    "Digits",
    "DigitsCNN",
    "DigitsMLP",
    "DigitsViT",
    "RecurrentLM",
    "TrainedDigits",
    "digits",
    "log_steps",
    "standard_library",
    "train",
    "train_digits",
]
