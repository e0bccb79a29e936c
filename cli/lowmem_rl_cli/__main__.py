"""`python -m lowmem_rl_cli`: the command without its script, for a package that is only on PYTHONPATH."""

import sys

from lowmem_rl_cli.app import main

if __name__ == "__main__":
    sys.exit(main())
