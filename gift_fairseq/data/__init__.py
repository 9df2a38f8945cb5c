"""Data for experiments: subwords, and a toy language pair that needs no download."""
