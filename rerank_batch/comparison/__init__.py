"""Several systems in one job: the plan, the stages, the lists side by side."""
