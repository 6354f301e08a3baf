"""Fields cut into tiles, and the outputs of tiles put together again."""
