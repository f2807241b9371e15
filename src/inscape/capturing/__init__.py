"""Run a model over stimuli: write a store or feed summaries."""
