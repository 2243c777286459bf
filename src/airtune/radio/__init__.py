"""The cell: who is where, how well each is heard, and what a transmission costs."""
