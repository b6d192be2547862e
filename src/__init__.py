"""What the notebooks and the commands are made of."""
