"""Files of other projects, in and out."""
