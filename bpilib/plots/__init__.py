"""Arrays in, figures out. Only notebooks and the widgets import what is here."""
