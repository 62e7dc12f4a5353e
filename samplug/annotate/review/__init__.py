"""What to look at first: the review list and its contact sheet."""
