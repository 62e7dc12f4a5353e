"""Training of any checkpoint on a user's data: the loop behind `SAM.train`."""
