"""The exact search for the best plan: reduction to a core, and two frontiers joined."""
