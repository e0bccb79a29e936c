"""`python -m lowmem_rl`: the command line, which is a package of its own."""

import runpy

if __name__ == "__main__":
    runpy.run_module("lowmem_rl_cli", run_name="__main__", alter_sys=True)
