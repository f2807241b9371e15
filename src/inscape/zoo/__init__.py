"""Small models and tasks that train in seconds to minutes, for demos, tests and studies."""
