"""The few shared quantities that every measure is a closed form of, and the planner that picks a route."""
