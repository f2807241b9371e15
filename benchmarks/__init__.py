"""Speed and memory, measured against a floor or a peer in the same run: `python -m benchmarks.run --help`."""
