"""Callbacks for other people's trainers, against the same training without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import inscape.errors
from inscape.errors import MissingExtraError
from inscape.training import Monitor, huggingface_callback, lightning_callback, read_log

IMAGES = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.2), nn.Tanh())
        self.head = nn.Linear(8, 2)

    def forward(self, images: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
        logits = self.head(self.inner(images))
        return logits if labels is None else {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def watched(model: nn.Module, folder: Path | None = None) -> Monitor:
    return Monitor(model, IMAGES[:32], "inner.2", "effective_rank", 2, to=folder)


@pytest.mark.filterwarnings("ignore")
def test_huggingface_trains_the_same_and_the_log_has_its_losses(tmp_path: Path):
    from transformers import Trainer, TrainingArguments

    data = [{"images": image, "labels": torch.tensor(int(image[0] > 0))} for image in IMAGES]

    def run(model: nn.Module, callbacks: list[Any]) -> Any:
        options: dict[str, Any] = {"logging_steps": 1, "report_to": [], "use_cpu": True, "disable_tqdm": True, "save_strategy": "no"}
        arguments = TrainingArguments(str(tmp_path / "out"), max_steps=6, per_device_train_batch_size=8, **options)
        trainer = Trainer(model, arguments, train_dataset=data, callbacks=callbacks)
        trainer.train()
        return trainer

    plain, model = Small(), Small()
    run(plain, [])
    trainer = run(model, [huggingface_callback(watched(model, tmp_path / "log"))])
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), model.parameters(), strict=True))
    log = read_log(tmp_path / "log")
    assert log.where(measure="effective_rank").column("at") == [2, 4, 6]
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert log.value(measure="loss", at=4) == pytest.approx((losses[1] + losses[2]) / 2)  # what was logged before the probe at step 4


@pytest.mark.filterwarnings("ignore")
def test_lightning_trains_the_same_and_counts_its_updates(tmp_path: Path):
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Small()

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            loss = self.net(batch[0], (batch[0][:, 0] > 0).long())["loss"]
            losses.append(float(loss.detach()))
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def run(module: Module, callbacks: list[Any]) -> None:
        losses.clear()
        torch.manual_seed(2)
        options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        options |= {"enable_model_summary": False, "accelerator": "cpu", "devices": 1, "default_root_dir": tmp_path}
        trainer = lightning.Trainer(max_steps=4, accumulate_grad_batches=2, callbacks=callbacks, **options)
        trainer.fit(module, DataLoader(TensorDataset(IMAGES), batch_size=8, shuffle=True))

    losses: list[float] = []
    plain, module = Module(), Module()
    run(plain, [])
    mon = watched(module.net)
    run(module, [lightning_callback(mon)])
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), module.parameters(), strict=True))
    assert mon.result().where(measure="effective_rank").column("at") == [2, 4]
    # Two batches make an update; the second one's loss counts.
    assert mon.result().value(measure="loss", at=2) == pytest.approx((losses[1] + losses[3]) / 2, rel=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_lightning_resumed_before_the_end_of_the_log_drops_what_came_later(tmp_path: Path):
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Small()

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return self.net(batch[0], (batch[0][:, 0] > 0).long())["loss"]

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def run(until: int, resumed: str | None = None) -> tuple[Monitor, Any]:
        module = Module()
        mon = watched(module.net, tmp_path / "log")
        options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        options |= {"enable_model_summary": False, "accelerator": "cpu", "devices": 1, "default_root_dir": tmp_path}
        trainer = lightning.Trainer(max_steps=until, callbacks=[lightning_callback(mon)], **options)
        trainer.fit(module, DataLoader(TensorDataset(IMAGES), batch_size=8), ckpt_path=resumed)
        return mon, trainer

    _, trainer = run(4)
    trainer.save_checkpoint(tmp_path / "at-4.ckpt")
    run(10)
    assert read_log(tmp_path / "log").where(measure="effective_rank").column("at") == [2, 4, 6, 8, 10]
    mon, _ = run(7, str(tmp_path / "at-4.ckpt"))
    assert mon.steps == 7
    assert read_log(tmp_path / "log").where(measure="effective_rank").column("at") == [2, 4, 6]


@pytest.mark.parametrize(("make", "package"), [(huggingface_callback, "transformers"), (lightning_callback, "lightning")])
def test_a_missing_trainer_is_named(monkeypatch: pytest.MonkeyPatch, make: Any, package: str):
    def missing(module: str, extra: str, purpose: str) -> None:
        raise MissingExtraError(f"{purpose} needs the package {module!r}")

    monkeypatch.setattr("inscape.training.callbacks.require", missing)
    assert inscape.errors.require is not missing
    with pytest.raises(MissingExtraError, match=package):
        make(watched(Small()))
