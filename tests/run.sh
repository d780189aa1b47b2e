#!/usr/bin/env bash
# Installs into .venv if that is needed and passes the fast tests; arguments go to pytest: bash tests/run.sh -m slow.
# With --cov first, what the tests do not reach is listed at the end; .coveragerc says of what.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/venv.sh
export PYTHONDONTWRITEBYTECODE=  # the tests start Python some 60 times, and each start would compile torch anew
exec "$python" -m pytest --config-file tests/pytest.ini --numprocesses auto --maxprocesses 4 --dist worksteal tests "$@"
