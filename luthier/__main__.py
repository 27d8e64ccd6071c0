"""`python -P -m luthier`: the console script, for where the installed one is not at hand."""

from luthier.cli import main

main()
