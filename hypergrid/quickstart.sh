#!/usr/bin/env bash
# From nothing to a picture: installs into .venv if that is needed, trains MunchausenDQN with P_B by TLM and with a
# uniform P_B on the standard 20x20x20x20 hypergrid, and draws both against the perfect-sampler floor.
# TRAJECTORIES (default 160000, a few minutes on two cores) sets the length; the paper samples 1000000.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ $# -gt 0 ] || ! [[ ${TRAJECTORIES:-1} =~ ^[1-9][0-9]*$ ]]; then
    echo "error: quickstart.sh takes no arguments; TRAJECTORIES, a whole number, sets the length of the runs" >&2
    exit 2
fi
. tests/venv.sh
trajectories=${TRAJECTORIES:-160000}
config=hypergrid/experiments/config
runs=()
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true' INT TERM
for approach in tlm uniform; do
    "$python" hypergrid/run_hypergrid_exp.py --general $config/general.py:3 --env $config/hypergrid.py:standard \
        --algo $config/algo.py:munchausen_dqn --algo.backward_approach $approach \
        --general.n_trajectories="$trajectories" --general.exact_interval=1000 \
        --general.output_dir=runs/quickstart-"$trajectories" --general.if_exists=resume > >(cat) 2>&1 </dev/null &  # through cat: two progress bars would collide
    pids+=($!)
    runs+=(runs/quickstart-"$trajectories"/hypergrid/standard/munchausen_dqn-$approach-*/seed=3)
done
for pid in "${pids[@]}"; do wait "$pid"; done
"$python" -m hypergrid.plots ${runs[@]} --out "$PWD/runs/quickstart-$trajectories/quickstart.png"
