"""What is made fast by hand."""
