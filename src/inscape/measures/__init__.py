"""The registry of measures of one system and of a pair, and the verbs that run them."""
