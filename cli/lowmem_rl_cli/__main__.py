"""`python -m lowmem_rl_cli`: the command without its script, as where the package is on PYTHONPATH alone."""

import sys

from lowmem_rl_cli.app import main

if __name__ == "__main__":
    sys.exit(main())
