"""The same experiment between machines: what each side holds, and how they reach each other."""
