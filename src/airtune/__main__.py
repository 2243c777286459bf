"""`python -m airtune` is `airtune`."""

from airtune.cli import main

main()
