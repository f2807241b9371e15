"""Small models and tasks that train in seconds to minutes: material for demos, tests and studies."""

from __future__ import annotations

from inscape.zoo.collapses import TrainingRun, collapse_names, collapse_run
from inscape.zoo.corpus import ByteTokenizer, Corpus, standard_library
from inscape.zoo.diffusion import DigitsDiT, draw_digits, train_dit
from inscape.zoo.digits import Digits, DigitsCNN, DigitsMLP, DigitsViT, TrainedDigits, digits, train_digits
from inscape.zoo.gpt import GPT
from inscape.zoo.policy import Policy, RecurrentPolicy, TMaze, train_policy
from inscape.zoo.recurrent import RecurrentLM
from inscape.zoo.training import Checkpoint, log_steps, train

__all__ = [
    "GPT",
    "ByteTokenizer",
    "Checkpoint",
    "Corpus",
    "Digits",
    "DigitsCNN",
    "DigitsDiT",
    "DigitsMLP",
    "DigitsViT",
    "Policy",
    "RecurrentLM",
    "RecurrentPolicy",
    "TMaze",
    "TrainedDigits",
    "TrainingRun",
    "collapse_names",
    "collapse_run",
    "digits",
    "draw_digits",
    "log_steps",
    "standard_library",
    "train",
    "train_digits",
    "train_dit",
    "train_policy",
]
