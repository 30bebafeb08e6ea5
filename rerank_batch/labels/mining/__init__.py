"""Which documents become labels of a query: what is looked at, what is drawn, what is kept."""
