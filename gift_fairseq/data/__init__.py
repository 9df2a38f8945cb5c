"""Data for training: raw text to subwords, and a toy language pair that needs no download."""
