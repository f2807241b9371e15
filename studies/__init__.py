"""Published findings reproduced with the public API, one file each."""
