"""What a checkpoint may contain, whether it fits data and model, and what is made of it."""
