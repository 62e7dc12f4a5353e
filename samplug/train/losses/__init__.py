"""What is minimised, and the simulated users who prompt."""
