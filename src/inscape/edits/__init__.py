"""The mechanism of edits: add, replace, project out, scale, clamp, ablate, patch at a site."""
