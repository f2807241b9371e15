"""Map-reduce over shards of rows."""
