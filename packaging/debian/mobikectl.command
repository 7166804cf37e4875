#!/usr/lib/mobikectl/bin/python3 -I
"""mobikectl, with the Python packages of its own below /usr/lib/mobikectl."""

import sys

from mobikectl.cli import main

sys.exit(main())
