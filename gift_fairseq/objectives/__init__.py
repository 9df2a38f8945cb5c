"""What is descended after a prefix: pure tensor functions, and the objectives that wire options to them."""
