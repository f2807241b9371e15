"""One file per kind of dictionary; a new file with a class under `@dictionary_kind` is all that a new kind needs."""
