"""Training labels: mined from finished runs, split without leaks, written as trainers read them."""
