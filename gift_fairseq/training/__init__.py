"""Trainings by fairseq-train: launched, followed, and fine-tunings from one checkpoint with their controls."""
