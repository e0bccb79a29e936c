#!/usr/bin/env bash
# Starts train.py, one process a card. What must be installed is in MAPPING.md.
set -euo pipefail
CDPATH="" cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
exec accelerate launch --config_file accelerate.yaml train.py "$@"
