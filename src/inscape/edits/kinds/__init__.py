"""One file per kind of edit; a new file with a class under `@edit_kind` is all that a new kind needs."""
