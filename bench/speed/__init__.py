"""Speed: the naive server and turnpool side by side (`make bench`)."""
