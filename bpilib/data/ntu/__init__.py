"""NTU RGB+D: raw `.skeleton` files to a store."""
