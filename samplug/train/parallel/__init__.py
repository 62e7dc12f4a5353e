"""Training on several devices, a process each."""
