"""One file per method of mapping; a new file with a function under `@map_method` is all that a new method needs."""
