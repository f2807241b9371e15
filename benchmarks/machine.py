"""Where and with what a benchmark ran, and how much memory a process took at its peak."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import threading
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("inscape", "torch", "numpy", "scipy", "safetensors", "pyarrow", "transformers")


def processor() -> str:
    """The name of the processor, as the kernel gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit() -> str:
    """The commit that is checked out, with "+" when files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + (
        "+" if git("status", "--porcelain", "--", "src", "benchmarks/cases") else ""
    )


def environment(extra: tuple[str, ...] = ()) -> dict[str, Any]:
    """Machine, threads, versions and commit."""
    import psutil
    import torch

    versions: dict[str, str] = {"python": platform.python_version()}
    for name in (*PACKAGES, *extra):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "machine": {
            "processor": processor(),
            "architecture": platform.machine(),
            "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "system": f"{platform.system()} {platform.release()}",
            "load_before": [round(x, 2) for x in os.getloadavg()],
        },
        "threads": {"torch": torch.get_num_threads(), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS")},
        "versions": versions,
        "commit": commit(),
    }


def peak_rss() -> int:
    """The most bytes this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def rss() -> int:
    """The bytes this process holds now."""
    import psutil

    return psutil.Process().memory_info().rss


class PrivatePeak:
    """The most private memory while the block ran, in `bytes`: what is mapped from files does not count, since the system may drop those
    pages at any time. Read from /proc every 10 ms."""

    def __enter__(self) -> PrivatePeak:
        self.bytes = self._private()
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.join()

    def _look(self) -> None:
        while not self._over.wait(0.01):
            self.bytes = max(self.bytes, self._private())

    @staticmethod
    def _private() -> int:
        import psutil

        held = psutil.Process().memory_info()
        return held.rss - getattr(held, "shared", 0)


def alone(function: str, **arguments: Any) -> dict[str, Any]:
    """Calls `module:function(**arguments)` in a process of its own, whose peak memory is then its own, and returns what it returned."""
    module, name = function.split(":")
    script = (
        f"import json, sys; from {module} import {name}; "
        f"out = {name}(**json.loads(sys.argv[1])); print('\\n' + json.dumps(out), flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", script, json.dumps(arguments)], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{function} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])
