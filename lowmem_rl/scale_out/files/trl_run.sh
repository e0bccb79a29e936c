#!/usr/bin/env bash
# Starts train.py, one process a card. It needs lowmem-rl with its extra `train` on this machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
exec accelerate launch --config_file accelerate.yaml train.py "$@"
