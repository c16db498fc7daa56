"""bpilib: the thin module under the notebooks (see README.md)."""
