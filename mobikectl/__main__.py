"""``python -m mobikectl``: the same as the console script."""

from mobikectl.cli import main

main()
