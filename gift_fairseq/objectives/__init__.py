"""The losses on prefixes: pure tensor functions, and the objectives that wire options to them."""
