"""The monitor in the hands of a trainer: callbacks for Hugging Face's Trainer and for Lightning."""

from __future__ import annotations

from typing import Any

from inscape.errors import require
from inscape.training.monitor import Monitor


def huggingface_callback(mon: Monitor) -> Any:
    """A callback for `transformers.Trainer` that steps a monitor of its model.

    Steps are the trainer's, so a run that resumes from a checkpoint takes the log up there. The loss is what the trainer logs (its mean
    over `logging_steps`), and is seen by the first probe after it; take `logging_steps` no longer than the monitor's `every`.

    Raises:
        MissingExtraError: transformers is not installed.

    Example:
        >>> trainer = Trainer(model, args, train_dataset=data, callbacks=[huggingface_callback(mon)])    # doctest: +SKIP
    """
    require("transformers", "hf", "the callback for Hugging Face's Trainer")
    from transformers import TrainerCallback

    class MonitorCallback(TrainerCallback):  # type: ignore[misc]
        """Steps the monitor after each update; losses come with the trainer's log."""

        loss: float | None = None

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """After an update of the weights."""
            mon.step(self.loss, step=int(state.global_step))
            self.loss = None

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            """Notes the loss for the next step."""
            if logs and "loss" in logs:
                self.loss = float(logs["loss"])

    return MonitorCallback()


def lightning_callback(mon: Monitor) -> Any:
    """A callback for Lightning's `Trainer` that steps a monitor of the module, or of a network inside it.

    Steps are updates of the weights (`trainer.global_step`), so a run that resumes from a checkpoint takes the log up there. Of batches
    that are accumulated the last one's loss counts. Processes, which Lightning joins only in `fit`, find each other at the first step.

    Raises:
        MissingExtraError: lightning is not installed.

    Example:
        >>> trainer = lightning.Trainer(callbacks=[lightning_callback(mon)])    # doctest: +SKIP
    """
    require("lightning", "lightning", "the callback for Lightning")
    from lightning.pytorch import Callback

    class MonitorCallback(Callback):
        """Steps the monitor after each batch that updated the weights."""

        seen = 0

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            """After a checkpoint, if there is one, was read: its count is where this run begins."""
            self.seen = int(trainer.global_step)

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            """After a batch, which may or may not have come with an update."""
            if trainer.global_step != self.seen:  # and not what the monitor has seen: a run may resume before the end of its log
                self.seen = int(trainer.global_step)
                loss = outputs["loss"] if isinstance(outputs, dict) else outputs
                # The trainer has divided it by the batches of an update.
                mon.step(None if loss is None else loss * trainer.accumulate_grad_batches, step=self.seen)

    return MonitorCallback()
