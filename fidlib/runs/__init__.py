"""Where results lie, what they are known by, and the machine that makes them."""
