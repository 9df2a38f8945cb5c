"""Data for training: raw text to subwords, the raw test sets, and fairseq's binarized folders."""
