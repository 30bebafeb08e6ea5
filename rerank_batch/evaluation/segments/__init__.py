"""Parts of the judged queries, and how each fares."""
