"""What the notebooks, the commands and the guide are made of."""
