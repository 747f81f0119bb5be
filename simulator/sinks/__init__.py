"""Where a player's messages go."""
