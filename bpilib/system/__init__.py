"""Files and the machine."""
