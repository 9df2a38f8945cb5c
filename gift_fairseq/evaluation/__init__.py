"""How good what a model generates is."""
