#!/usr/bin/env bash
# Train the shipped models on a machine with a GPU that can fetch nothing.
#
#   tools/train_shipped.sh pack DATA…        here: put the data and the missing wheels into .training/ (<= 64 MiB)
#   tools/train_shipped.sh run OUT [OPTION…] there: install the wheels, train, evaluate; options of tools/train_shipped.py
#
# .training/ is ignored by git: copy it beside the checkout. PYTHON_THERE=3.12 says for which Python the wheels are.
set -euo pipefail
cd "$(dirname "$0")/.."

# what a plain PyTorch machine lacks; versions are those of constraints.txt
WHEELS=(annotated-types connected-components-3d defusedxml edt kornia kornia_rs lightning-fabric lightning-utilities
  platformdirs pydantic pydantic_core shapely typing-inspection)

case "${1:-}" in
  pack)
    shift
    [ $# -gt 0 ] || { echo "error: name the dataset folders: tools/train_shipped.sh pack data/tnbc …" >&2; exit 2; }
    mkdir -p .training/wheels
    # no-deps: torch and NumPy are there already, and are large
    for name in "${WHEELS[@]}"; do
      version=$(grep -i "^${name}==" constraints.txt) || { echo "error: constraints.txt has no $name" >&2; exit 2; }
      python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version "${PYTHON_THERE:-3.12}" \
        --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform manylinux1_x86_64 \
        --platform manylinux_2_24_x86_64 --platform manylinux_2_31_x86_64 -d .training/wheels "$version"
    done
    "${PYTHON:-.venv/bin/python}" tools/train_shipped.py pack "$@" -o .training/data
    size=$(du -sm --apparent-size .training | cut -f1)
    [ "$size" -le 64 ] || { echo "error: .training holds $size MiB, more than 64" >&2; exit 2; }
    ;;
  run)
    shift
    PYTHON=${PYTHON:-python3}
    needs="import PIL, torch, defusedxml, hemalum, kornia, pydantic, lightning_fabric"
    if ! "$PYTHON" -c "$needs" 2>/dev/null; then
      site=$(mktemp -d)
      if [ -d .training/wheels ]; then
        # a wheel is a zip archive of what goes on the path; pip takes ten times as long to say so
        for wheel in .training/wheels/*.whl; do "$PYTHON" -m zipfile -e "$wheel" "$site" & done
        wait
      fi
      export PYTHONPATH="$site:$PWD/src"
      missing=$("$PYTHON" -c "$needs" 2>&1 | tail -n 1) ||
        { echo "error: $PYTHON lacks what training needs ($missing): pack it, or set PYTHON to one that has it" >&2; exit 2; }
    fi
    exec "$PYTHON" tools/train_shipped.py run "$@"
    ;;
  *)
    sed -n '2,8p' "$0" >&2
    exit 2
    ;;
esac
