"""The only room that knows Ray: clusters, datasets, actors, errors across processes."""
