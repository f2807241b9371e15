"""Reading features: what activates each, where, beside what, and how well that can be told."""
