"""What the front and prepare call to score a batch."""
