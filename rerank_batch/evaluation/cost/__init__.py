"""What quality costs, by system."""
