"""Where data and weights come from: places, hashes, and readers that trust neither."""
