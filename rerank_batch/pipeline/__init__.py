"""The job as stages on tables, without Ray: the graph, its pools, its failures."""
