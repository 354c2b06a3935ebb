"""How long a training step of placed experts takes."""
