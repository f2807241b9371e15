"""One of two processes that train one model together: `python ddp_worker.py RANK FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from inscape.training import Monitor


def main(rank: int, folder: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
    held_out = torch.randn(41, 6, generator=torch.Generator().manual_seed(1))
    told_early: list[int] = []
    # As with trainers that join the processes when training begins; each process may have a disk of its own.
    early = Monitor(net, held_out, "0", "effective_rank", 2, to=folder / f"early{rank}", log=lambda d, step: told_early.append(step))
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    model = DistributedDataParallel(net)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    told: list[int] = []
    sums = Monitor(
        model, held_out, ["2", "3"], ["effective_rank", "mean_cosine"], 2, to=folder / "log", log=lambda d, step: told.append(step)
    )
    rows = Monitor(model, held_out, "2", "two_nn", 2)
    for step in range(6):
        loss = model(torch.randn(16, 6, generator=torch.Generator().manual_seed(10 * step + rank))).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        sums.step(loss)
        rows.step(torch.tensor(float(rank)))
        early.step(torch.tensor(float(rank)))
    values = [row["value"] for row in sums.result().rows()] + [row["value"] for row in rows.result().rows()]
    net.eval()
    with torch.no_grad():
        last, first = net[:3](held_out).tolist(), net[:1](held_out).tolist()
    found: dict[str, object] = {
        "values": values,
        "told": told,
        "rows": last,
        "first rows": first,
        "told_early": told_early,
        "early": [*early.result().column("value")],
        "weights": [float(p.sum()) for p in net.parameters()],
    }
    (folder / f"rank{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
