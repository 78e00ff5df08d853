#!/usr/bin/env bash
# Runs the notebooks on what Colab and Kaggle bring; they install the rest themselves.
set -euo pipefail
cd "$(dirname "$0")/.."
source tests/interpreter.sh

notebooks() { # name, Python, packages that must be absent, packages to install
  local name=$1 python absent=$3
  python=$(interpreter "$2")
  if [ -z "$python" ]; then
    echo "SKIPPED notebooks on $name: no Python $2"
    return
  fi
  shift 3
  echo "== notebooks on $name: $("$python" --version)"
  local venv=.venv-notebooks-$name
  "$python" -m venv --clear "$venv" # an earlier pass has installed into it
  "$venv/bin/python" -m pip install --quiet --no-compile \
    jupytext nbclient ipykernel pytest matplotlib "$@"
  # shellcheck disable=SC2086  # a list of names
  "$venv/bin/python" -I -c '
import importlib.util, sys
there = [name for name in sys.argv[1:] if importlib.util.find_spec(name)]
sys.exit(f"already there: {there}" if there else 0)' $absent
  LSTM_JAX_NOTEBOOKS=1 "$venv/bin/python" -m pytest -rs tests/test_notebooks.py
}

notebooks colab 3.13 "lstm_jax tyro tensorflow" jax==0.7.2 jaxlib==0.7.2 flax==0.11.2
notebooks kaggle 3.12 "lstm_jax tyro" jax==0.7.2 jaxlib==0.7.2 tensorflow-cpu
