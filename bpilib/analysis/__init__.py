"""What a trained network knows."""
