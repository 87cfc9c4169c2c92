"""Puts components together into processes: start, supervise, stop, and leave nothing behind."""
