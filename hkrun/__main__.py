"""`python -m hkrun` is `hkrun`."""

from hkrun.cli import main

main()
