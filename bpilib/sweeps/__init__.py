"""Many runs from one table."""
