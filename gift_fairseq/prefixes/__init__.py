"""What the decoder reads in training: sources of prefixes, and the tensor functions they are made of."""
