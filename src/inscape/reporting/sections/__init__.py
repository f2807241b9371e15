"""One file per kind of result; a new kind is a new file here that calls `section`."""
