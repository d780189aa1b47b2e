# Sourced by quickstart.sh and run.sh from the repository's root: makes .venv and installs requirements.txt into it,
# once, and again when requirements.txt or setup.py changed. Sets $python. PYTHON names another interpreter.
interpreter=${PYTHON:-python3}
if ! "$interpreter" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    found=$("$interpreter" --version 2>&1 || true)
    echo "error: Python 3.11 or newer is needed, $interpreter is '${found}': install it and set PYTHON=python3.11" >&2
    exit 1
fi
python=$PWD/.venv/bin/python
wanted=$(cat requirements.txt setup.py | cksum)
if [ ! -x "$python" ] || [ "$(cat .venv/installed 2>/dev/null)" != "$wanted" ]; then
    echo "installing requirements.txt into .venv (a few minutes the first time)"
    [ -x "$python" ] || "$interpreter" -m venv .venv
    # without compiling what is never imported
    "$python" -m pip install --quiet --no-compile --disable-pip-version-check --requirement requirements.txt
    echo "$wanted" >.venv/installed
fi
