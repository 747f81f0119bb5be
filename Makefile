# make demo            the whole of Runout on this machine, on a simulated plant
# make demo KEEP=1     and leaves it running behind the fleet's page, until Ctrl-C
# make demo DATA=DIR   the same on NASA's turbofan recordings (train_FD001.txt ..., plain or .gz)
# make docs            the documentation as a site in out/site, links and anchors checked
# make test            all tests, two at a time (ARGS="-n 0 tests/agent": as you like); make lint: the
#                      linters; make clean: everything made here
.PHONY: demo docs test lint clean help

VENV := .venv
BIN := $(VENV)/bin

help:
	@sed -n 's/^# //p' $(MAKEFILE_LIST)

$(VENV)/.demo: pyproject.toml deploy/venv.sh
	@sh deploy/venv.sh $(VENV) demo

$(VENV)/.dev: pyproject.toml deploy/venv.sh
	@sh deploy/venv.sh $(VENV) dev

demo: $(VENV)/.demo
	@$(BIN)/python -m demo $(if $(DATA),--data "$(DATA)") $(if $(BROKER),--broker $(BROKER)) $(if $(KEEP),--keep)

test: $(VENV)/.dev
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) docs

docs: $(VENV)/.dev
	$(BIN)/python docs/generate.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) out build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
