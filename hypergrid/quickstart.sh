#!/usr/bin/env bash
# From nothing to a picture: installs into .venv if that is needed, trains MunchausenDQN with P_B by TLM and with a
# uniform P_B on the standard 20x20x20x20 hypergrid, and shows both beside the perfect-sampler floor.
# TRAJECTORIES (default 120000, a few minutes on two cores) sets the length; the paper samples 1000000.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ $# -gt 0 ] || ! [[ ${TRAJECTORIES:-1} =~ ^[1-9][0-9]*$ ]]; then
    echo "error: quickstart.sh takes no arguments; TRAJECTORIES, a whole number, sets the length of the runs" >&2
    exit 2
fi
. tests/venv.sh
exec "$python" -m hypergrid.quickstart ${TRAJECTORIES:+"$TRAJECTORIES"}
