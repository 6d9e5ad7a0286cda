"""`python -m cli`: the same as `homegrown`."""

from cli import main

main()
