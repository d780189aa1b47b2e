#!/usr/bin/env bash
# Prints the runs of figure 3, the reward correlation at each learning rate: the same as those of figure2.sh.
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/figure2.sh"
