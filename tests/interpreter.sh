# The newest interpreter of a version that can make an environment; empty if there is none.
interpreter() {
  local found
  for found in $(ls -d "$HOME"/.pyenv/versions/"$1".*/bin/python 2>/dev/null | sort -rV) \
    "$(command -v "python$1" || true)"; do
    if [ -x "$found" ] && "$found" -c "import ensurepip, venv" 2>/dev/null; then
      echo "$found"
      return
    fi
  done
}
