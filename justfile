# Every command of CONTRIBUTING.md under a short name: https://just.systems

set positional-arguments

python := ".venv/bin/python"

# The environment, in .venv.
setup:
    python3 -m venv .venv && {{ python }} -m pip install -c constraints.txt -e '.[test]'

# Lay out every file.
format:
    {{ python }} -m ruff format . && {{ python }} -m ruff check --fix .

# What CI looks at before it tests.
lint:
    {{ python }} -m ruff format --check . && {{ python }} -m ruff check . && {{ python }} -m pyright --pythonpath {{ python }}

# The tests but for the slow ones: just test tests/models -k "cnn or vit"
test *arguments:
    {{ python }} -m pytest "$@"

# The tests that train for more than a few seconds.
slow *arguments:
    {{ python }} -m pytest -m slow "$@"

# Every benchmark, each a ratio against what it is compared with.
bench:
    for file in benchmarks/*.py; do echo "$file"; {{ python }} "$file" || exit 1; done

# The wheel, in dist/.
wheel:
    {{ python }} -m pip wheel --no-deps --wheel-dir dist .

# The MLflow pages of the runs in this folder: just ui port=5001
ui *options:
    {{ python }} -m dlframe ui "$@"
