"""Raw logs: reading them, their rules, and the events in them."""
