#!/usr/bin/env bash
# Trains with verl on the cards of one machine:      bash run.sh
# On several, which share this folder under one path: bash run.sh head          on the first,
#                                                     bash run.sh join FIRST    on each other one,
#                                                     bash run.sh               on the first.
# What must be installed is in MAPPING.md. What follows run.sh is a further override.
set -euo pipefail
CDPATH="" cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
case "${1:-}" in
head) exec ray start --head --port=6379 ;;
join) exec ray start --address="${2:?the first machine: bash run.sh join FIRST}:6379" --block ;;
esac
exec python3 -m lowmem_rl.scale_out.start_verl . "$@"
