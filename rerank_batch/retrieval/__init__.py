"""First stage: queries and documents become vectors, shards answer with candidates."""
