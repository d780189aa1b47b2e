#!/usr/bin/env bash
# Installs into .venv if that is needed and passes the fast tests; arguments go to pytest: bash tests/run.sh -m slow
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/venv.sh
exec "$python" -m pytest --config-file tests/pytest.ini --numprocesses auto --maxprocesses 4 --dist loadfile tests "$@"
