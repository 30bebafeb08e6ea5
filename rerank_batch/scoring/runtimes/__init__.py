"""What executes a network: torch or OpenVINO."""
