"""A model's own translations of its training text, as training data: sequence-level interpolation, done once.

:mod:`.propose` translates, :mod:`.choose` makes a data folder of gold pairs and the best translations, :mod:`.origin`
says in that folder where they come from. Kim and Rush (2016, Sequence-Level Knowledge Distillation, section 3.3) take
the best of a beam by BLEU from a larger teacher; here the model is its own.
"""
