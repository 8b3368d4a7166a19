"""What nodes share through Redis; every part has a fallback in memory for when Redis is away."""
