"""Load a model, name its sites, hook it."""
