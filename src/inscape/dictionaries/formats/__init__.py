"""One file for each format in which other libraries keep dictionaries."""
