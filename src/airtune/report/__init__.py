"""Reading a run: tables for the terminal, one HTML file for colleagues."""
