#!/usr/bin/env bash
# Prints sEH runs that take minutes on one core each, one command a line, to compare approaches before a run of days:
#
#     bash mols/sweeps/seh_small.sh | python -m mols.analysis.launch
#
# From the environment: SEEDS, LEARNING_RATES, OBJECTIVES, APPROACHES; SCALE, a fraction of the iterations; OUTPUT_DIR.
# The network has half the width and a quarter of the layers of the paper's, a batch has 64 molecules, and there are
# 1,000 iterations instead of 20,000.
set -euo pipefail
task=seh_frag
options=" --width 64 --n_layers 2 --batch_size 64"
full=1000 seeds="1 2 3 4" rates="0.001"
. "$(dirname "${BASH_SOURCE[0]}")/grid.sh"
